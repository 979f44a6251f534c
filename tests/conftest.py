"""What `make quick` leaves out: files whose tests take seconds each, or start other processes."""

import pytest

SLOW = {
    "test_attack", "test_base_models", "test_distributed", "test_figures", "test_fresh",
    "test_fit", "test_golden", "test_hub", "test_notebooks", "test_processes", "test_readme",
    "test_real_runs", "test_reproduce", "test_sandbox", "test_store", "test_studies", "test_sweep",
    "test_takeaway", "test_world", "test_written", "test_xlora", "test_gpu", "test_doctor",
    "test_four_bit", "test_check", "test_lorahub", "test_alphas",
}  # fmt: skip


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)
