// The mini model (a Llama) and its tokenizer in plain JavaScript: one token at a time, with a cache
// of keys and values, and a soup of LoRAs added to its weights. Used by soup.html and by the tests.
"use strict";

(function () {
  /** Every float16, as a number. */
  const HALVES = Float32Array.from({ length: 65536 }, (_, half) => {
    const sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, part = half & 1023;
    return sign * (exponent ? (1 + part / 1024) * 2 ** (exponent - 15) : part * 2 ** -24);
  });

  /** The numbers of a text of float16 in base64, as float32. */
  function floats(text) {
    const bytes = atob(text), out = new Float32Array(bytes.length / 2);
    for (let i = 0; i < out.length; i++) {
      out[i] = HALVES[bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8)];
    }
    return out;
  }

  /** Name -> tensor, of what soup_data.py packed. */
  function unpacked({ shapes, float16 }) {
    const all = floats(float16), tensors = {};
    let start = 0;
    for (const [name, shape] of Object.entries(shapes)) {
      const end = start + shape.reduce((a, b) => a * b, 1);
      tensors[name] = all.subarray(start, end);
      start = end;
    }
    return tensors;
  }

  /** Words to ids and back, as tokenizer.json says: split by a pattern, then looked up. */
  class Tokenizer {
    constructor({ vocab, special, unknown, pattern }) {
      this.vocab = vocab;
      this.words = Object.keys(vocab).sort((a, b) => vocab[a] - vocab[b]);
      this.special = special;
      this.unknown = vocab[unknown];
      // Rust's \s is Unicode's white space, JavaScript's is not quite
      this.pattern = new RegExp(pattern.replaceAll("\\s", "\\p{White_Space}"), "gu");
    }

    /** The pieces of a text: matches of the pattern, and what stands between them. */
    pieces(text) {
      const found = [];
      let start = 0;
      for (const match of text.matchAll(this.pattern)) {
        if (match.index > start) found.push(text.slice(start, match.index));
        found.push(match[0]);
        start = match.index + match[0].length;
      }
      return start < text.length ? [...found, text.slice(start)] : found;
    }

    /** Ids of a prompt, with the start token; special tokens may be written out. */
    encode(text) {
      const parts = text.split(new RegExp(`(${this.special.join("|")})`));
      const pieces = parts.flatMap((part) =>
        this.special.includes(part) ? [part] : this.pieces(part));
      return [this.vocab["<s>"], ...pieces.map((piece) => this.idOf(piece))];
    }

    idOf(piece) {
      return Object.hasOwn(this.vocab, piece) ? this.vocab[piece] : this.unknown;
    }

    /** The pieces of a text that the model does not know. */
    unknownPieces(text) {
      return this.pieces(text).filter((piece) => this.idOf(piece) === this.unknown);
    }

    decode(ids) {
      const shown = ids.map((id) => this.words[id]).filter((word) => !this.special.includes(word));
      return shown.join("");
    }
  }

  /** out = W x; W: rows of x's length, one after the other. Four sums at a time: much quicker. */
  function times(W, x, out) {
    const n = x.length;
    for (let row = 0, at = 0; row < out.length; row++) {
      let one = 0, two = 0, three = 0, four = 0;
      for (let i = 0; i < n; i += 4, at += 4) {
        one += W[at] * x[i];
        two += W[at + 1] * x[i + 1];
        three += W[at + 2] * x[i + 2];
        four += W[at + 3] * x[i + 3];
      }
      out[row] = one + two + three + four;
    }
    return out;
  }

  /** The delta weight B A of one module. */
  function delta(A, B, rank) {
    const rows = B.length / rank, columns = A.length / rank, out = new Float32Array(rows * columns);
    for (let row = 0; row < rows; row++) {
      for (let r = 0; r < rank; r++) {
        const b = B[row * rank + r];
        for (let i = 0; i < columns; i++) out[row * columns + i] += b * A[r * columns + i];
      }
    }
    return out;
  }

  /** x over its root mean square, times a weight per place (RMSNorm). */
  function normed(x, weight, eps) {
    let squares = 0;
    for (const value of x) squares += value * value;
    const factor = 1 / Math.sqrt(squares / x.length + eps);
    return x.map((value, i) => value * factor * weight[i]);
  }

  class Model {
    constructor(data) {
      this.tokenizer = new Tokenizer(data);
      this.config = data.config;
      this.base = unpacked(data.base);
      this.deltas = data.loras.map((lora) => {
        const factors = unpacked(lora), deltas = {};
        for (const name of Object.keys(factors).filter((key) => key.endsWith(".A"))) {
          const module = name.slice(0, -2), rank = lora.shapes[name][0];
          deltas[module] = delta(factors[name], factors[`${module}.B`], rank);
        }
        return deltas;
      });
      this.weights = { ...this.base };
      for (const deltas of this.deltas) {
        for (const module of Object.keys(deltas)) {
          const name = `${module}.weight`;
          this.weights[name] = Float32Array.from(this.base[name]);
        }
      }
      this.reset();
    }

    /** The soup: base + sum of alpha times delta. `alphas`: one per LoRA, or a list per module. */
    setAlphas(alphas) {
      const modules = new Set(this.deltas.flatMap((deltas) => Object.keys(deltas)));
      for (const module of modules) {
        const name = `${module}.weight`, base = this.base[name], weight = this.weights[name];
        weight.set(base);
        this.deltas.forEach((deltas, k) => {
          const change = deltas[module], of = Array.isArray(alphas) ? alphas : alphas[module];
          const alpha = of[k];
          if (!change || alpha === 0) return;
          for (let i = 0; i < weight.length; i++) weight[i] += alpha * change[i];
        });
      }
      this.reset();
    }

    /** Forget the text that was read. */
    reset() {
      const layers = { length: this.config.num_hidden_layers };
      this.cache = Array.from(layers, () => ({ keys: [], values: [] }));
    }

    /** Turn q or k by its position, head by head (RoPE: the first half against the second). */
    turn(x, position) {
      const { head_dim: d, rope_parameters: rope } = this.config, half = d / 2;
      for (let head = 0; head < x.length; head += d) {
        for (let i = 0; i < half; i++) {
          const angle = position * rope.rope_theta ** (-2 * i / d);
          const cos = Math.cos(angle), sin = Math.sin(angle);
          const a = x[head + i], b = x[head + i + half];
          x[head + i] = a * cos - b * sin;
          x[head + i + half] = b * cos + a * sin;
        }
      }
      return x;
    }

    /** What every head sees: values, weighted by how well their keys fit the query. */
    attend(q, { keys, values }) {
      const d = this.config.head_dim, out = new Float32Array(q.length);
      for (let head = 0; head < q.length; head += d) {
        const fits = keys.map((key) => {
          let sum = 0;
          for (let i = head; i < head + d; i++) sum += q[i] * key[i];
          return sum / Math.sqrt(d);
        });
        const highest = Math.max(...fits);
        const shares = fits.map((fit) => Math.exp(fit - highest));
        const total = shares.reduce((a, b) => a + b, 0);
        values.forEach((value, t) => {
          for (let i = head; i < head + d; i++) out[i] += (shares[t] / total) * value[i];
        });
      }
      return out;
    }

    /** Read one token; logits of the next one, or null if they are not wanted. */
    step(token, wanted = true) {
      const { hidden_size: size, intermediate_size: inner, rms_norm_eps: eps } = this.config;
      const W = this.weights, embeddings = W["model.embed_tokens.weight"];
      const vector = () => new Float32Array(size);
      let x = embeddings.slice(token * size, (token + 1) * size);
      this.cache.forEach((seen, layer) => {
        const of = (name) => W[`model.layers.${layer}.${name}.weight`];
        const project = (name, input) => times(of(`self_attn.${name}_proj`), input, vector());
        let h = normed(x, of("input_layernorm"), eps);
        const position = seen.keys.length;
        seen.keys.push(this.turn(project("k", h), position));
        seen.values.push(project("v", h));
        const attended = this.attend(this.turn(project("q", h), position), seen);
        const around = project("o", attended);
        x = x.map((value, i) => value + around[i]);

        h = normed(x, of("post_attention_layernorm"), eps);
        const gate = times(of("mlp.gate_proj"), h, new Float32Array(inner));
        const up = times(of("mlp.up_proj"), h, new Float32Array(inner));
        const gated = gate.map((value, i) => (value / (1 + Math.exp(-value))) * up[i]);
        const down = times(of("mlp.down_proj"), gated, vector());
        x = x.map((value, i) => value + down[i]);
      });
      if (!wanted) return null;
      const rows = embeddings.length / size; // the embeddings are the output layer, too
      return times(embeddings, normed(x, W["model.norm.weight"], eps), new Float32Array(rows));
    }

    /** Logits after every token of a list. */
    logits(ids) {
      this.reset();
      return ids.map((id) => this.step(id));
    }

    /** Greedy answer, step by step: yields the text so far after every token, read or written. */
    *answer(ids, most) {
      this.reset();
      for (const id of ids.slice(0, -1)) {
        this.step(id, false);
        yield "";
      }
      const written = [];
      let token = ids.at(-1);
      while (written.length < most) {
        const logits = this.step(token);
        token = logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
        if (token === this.config.eos_token_id) return;
        written.push(token);
        yield this.tokenizer.decode(written);
      }
    }
  }

  /** The number that an answer gives: { form: "program" | "words" | "", value }.
   *
   * A program is `solution`, of lines `b = a + 5` and a return, as the code skill writes them; one
   * that breaks off or uses an unset name gives no value. In words it is "The answer is ...". */
  function read(text) {
    const start = text.search(/^ *def solution\(\):$/m);
    if (start < 0) {
      const said = text.match(/The answer is (-?\d+)/);
      return said ? { form: "words", value: Number(said[1]) } : { form: "" };
    }
    const names = {}, failed = { form: "program" };
    const value = (word) => (/^\d+$/.test(word) ? Number(word) : names[word]);
    for (const line of text.slice(start).split("\n").slice(1)) {
      const match = line.match(/^ {4}(?:(\w+) =|return) (\w+)(?: ([-+*/]) (\w+))?$/);
      if (!match) return failed;
      const [, name, left, operation, right] = match, a = value(left), b = value(right ?? "0");
      const result = { "+": a + b, "-": a - b, "*": a * b, "/": a / b }[operation ?? "+"];
      if (!Number.isFinite(result)) return failed;
      if (!name) return { form: "program", value: result };
      names[name] = result;
    }
    return failed;
  }

  const soup = { Model, Tokenizer, read };
  if (typeof module === "undefined") globalThis.Soup = soup;
  else module.exports = soup;
})();
