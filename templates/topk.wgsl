{#- The `keep` largest of every slice of `chunk` logits, in falling order, by a bitonic sort in
    workgroup memory; where there are shuffles, subgroups sort runs of twice their size in registers.
    Repeated until one slice is left; see codegen/src/kernels/topk.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
@group(0) @binding({{ b.values }}) var<storage, read> values: array<f32>;
{% if not s.first -%}
@group(0) @binding({{ b.indices }}) var<storage, read> indices: array<u32>;
{%- endif %}
@group(0) @binding({{ b.top_values }}) var<storage, read_write> top_values: array<f32>;
@group(0) @binding({{ b.top_indices }}) var<storage, read_write> top_indices: array<u32>;

const CHUNK = {{ s.chunk }}u;
var<workgroup> value: array<f32, {{ s.chunk }}>;
var<workgroup> index: array<u32, {{ s.chunk }}>;

struct Entry {
  v: f32,
  i: u32,
}
// True when a stands before b: larger value first, smaller id first among equals.
fn before(a: Entry, b: Entry) -> bool {
  return a.v > b.v || (a.v == b.v && a.i < b.i);
}
fn fetched(at: u32) -> Entry {
  if (at < {{ s.n }}u) { return Entry(values[at], {% if s.first %}at{% else %}indices[at]{% endif %}); }
  return Entry(-3.4e38, 0xffffffffu);
}
fn put(at: u32, e: Entry) {
  value[at] = e.v;
  index[at] = e.i;
}
// One step of a bitonic sort for the places `i` and `j`, in runs of `size` that fall and rise in turn.
fn exchange(i: u32, j: u32, size: u32) {
  let a = Entry(value[i], index[i]);
  let b = Entry(value[j], index[j]);
  if (before(b, a) == ((i & size) == 0u)) {
    put(i, b);
    put(j, a);
  }
}
{% if c.sg > 1 -%}
{{ <topk_registers sg={c.sg} /> }}
{%- endif %}

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
{%- if c.sg > 1 %}
  for (var k = 0u; k < {{ s.chunk // 2 // c.wg }}u; k += 1u) {
    let at = (k * {{ c.wg // c.sg }}u + t / SG) * RUN + t % SG;
    var p = Pair(fetched(wid.x * CHUNK + at), fetched(wid.x * CHUNK + at + SG));
    for (var size = 2u; size <= RUN; size <<= 1u) { p = within(p, at, size); }
    put(at, p.a);
    put(at + SG, p.b);
  }
{%- else %}
  for (var i = t; i < CHUNK; i += {{ c.wg }}u) { put(i, fetched(wid.x * CHUNK + i)); }
{%- endif %}
  workgroupBarrier();
  for (var size = {{ 4 * c.sg if c.sg > 1 else 2 }}u; size <= CHUNK; size <<= 1u) {
    for (var stride = size >> 1u; stride > {{ c.sg if c.sg > 1 else 0 }}u; stride >>= 1u) {
      for (var p = t; p < CHUNK / 2u; p += {{ c.wg }}u) {
        let i = 2u * stride * (p / stride) + p % stride;
        exchange(i, i + stride, size);
      }
      workgroupBarrier();
    }
{%- if c.sg > 1 %}
    for (var k = 0u; k < {{ s.chunk // 2 // c.wg }}u; k += 1u) {
      let at = (k * {{ c.wg // c.sg }}u + t / SG) * RUN + t % SG;
      let p = within(Pair(Entry(value[at], index[at]), Entry(value[at + SG], index[at + SG])), at, size);
      put(at, p.a);
      put(at + SG, p.b);
    }
    workgroupBarrier();
{%- endif %}
  }
  for (var i = t; i < {{ s.keep }}u; i += {{ c.wg }}u) {
    top_values[wid.x * {{ s.keep }}u + i] = value[i];
    top_indices[wid.x * {{ s.keep }}u + i] = index[i];
  }
}

{#- Steps of the sort within a run that a subgroup holds, two entries a lane. -#}
{% component topk_registers(sg: integer) -%}
const SG = {{ sg }}u;
const RUN = {{ 2 * sg }}u;
struct Pair {
  a: Entry,
  b: Entry,
}
// What belongs at place `at` after a comparison with the entry of lane `lane ^ stride`.
fn exchanged(mine: Entry, at: u32, size: u32, stride: u32) -> Entry {
  let other = Entry(subgroupShuffleXor(mine.v, stride), subgroupShuffleXor(mine.i, stride));
  let first = ((at & stride) == 0u) == ((at & size) == 0u);
  if (before(other, mine) == first) { return other; }
  return mine;
}
// The steps of `size` from a distance of SG down; the lane holds the places `at` and `at + SG`.
fn within(pair: Pair, at: u32, size: u32) -> Pair {
  var a = pair.a;
  var b = pair.b;
  for (var stride = min(size >> 1u, SG); stride > 0u; stride >>= 1u) {
    if (stride == SG) {
      if (before(b, a) == ((at & size) == 0u)) {
        let c = a;
        a = b;
        b = c;
      }
    } else {
      a = exchanged(a, at, size, stride);
      b = exchanged(b, at + SG, size, stride);
    }
  }
  return Pair(a, b);
}
{%- endcomponent topk_registers %}
