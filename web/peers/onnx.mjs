// An ONNX file of products one after the other (`MatMulNBits`, int4 in blocks of 32), written by hand:
// the format is protobuf, and this needs a dozen of its fields.

const text = new TextEncoder();

function varint(value) {
  const bytes = [];
  for (let rest = BigInt(value); ; rest >>= 7n) {
    const low = Number(rest & 0x7fn);
    if (rest < 0x80n) return Uint8Array.from([...bytes, low]);
    bytes.push(low | 0x80);
  }
}

function join(...parts) {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  parts.reduce((at, part) => (out.set(part, at), at + part.length), 0);
  return out;
}

const int = (field, value) => join(varint(field << 3), varint(value));
const bytes = (field, data) => join(varint((field << 3) | 2), varint(data.length), data);
const string = (field, value) => bytes(field, text.encode(value));
const message = (field, ...parts) => bytes(field, join(...parts));

const [FLOAT, UINT8] = [1, 2];
const tensor = (name, type, dims, data) => message(5, ...dims.map((d) => int(1, d)), int(2, type), string(8, name), bytes(9, data));
const dims = (sizes) => message(2, ...sizes.map((size) => message(1, int(1, size))));
const value = (field, name, sizes) => message(field, string(1, name), message(2, message(1, int(1, FLOAT), dims(sizes))));
const attribute = (name, number) => message(5, string(1, name), int(3, number), int(20, 2));

/** `sizes`: columns of the first product, then rows of each. */
export function chain(sizes, random) {
  const nodes = [];
  const weights = [];
  for (let i = 0; i + 1 < sizes.length; i++) {
    const [columns, rows] = [sizes[i], sizes[i + 1]];
    const groups = (rows * columns) / 32;
    const codes = new Uint8Array(groups * 16);
    for (let k = 0; k < codes.length; k++) codes[k] = random() * 256;
    const scales = new Float32Array(groups).fill(0.01);
    weights.push(tensor(`w${i}`, UINT8, [rows, columns / 32, 16], codes));
    weights.push(tensor(`s${i}`, FLOAT, [groups], new Uint8Array(scales.buffer)));
    const attributes = [["K", columns], ["N", rows], ["bits", 4], ["block_size", 32]].map(([n, v]) => attribute(n, v));
    nodes.push(
      message(1, string(1, `x${i}`), string(1, `w${i}`), string(1, `s${i}`), string(2, `x${i + 1}`), string(4, "MatMulNBits"), ...attributes, string(7, "com.microsoft")),
    );
  }
  const last = sizes.length - 1;
  const graph = message(7, ...nodes, string(2, "chain"), ...weights, value(11, "x0", [1, sizes[0]]), value(12, `x${last}`, [1, sizes[last]]));
  const opset = (domain, version) => message(8, string(1, domain), int(2, version));
  return join(int(1, 8), opset("", 17), opset("com.microsoft", 1), graph);
}
