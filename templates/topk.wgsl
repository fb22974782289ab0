{#- The `keep` largest of every slice of `chunk` logits, in falling order, by a bitonic sort in
    workgroup memory. Repeated until one slice is left; see codegen/src/kernels/topk.rs. -#}
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

// True when a stands before b: larger value first, smaller id first among equals.
fn before(va: f32, ia: u32, vb: f32, ib: u32) -> bool {
  return va > vb || (va == vb && ia < ib);
}

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  for (var i = t; i < CHUNK; i += {{ c.wg }}u) {
    let start = wid.x * CHUNK + i;
    value[i] = -3.4e38;
    index[i] = 0xffffffffu;
    if (start < {{ s.n }}u) {
      value[i] = values[start];
      index[i] = {% if s.first %}start{% else %}indices[start]{% endif %};
    }
  }
  workgroupBarrier();
  for (var size = 2u; size <= CHUNK; size <<= 1u) {
    for (var stride = size >> 1u; stride > 0u; stride >>= 1u) {
      for (var p = t; p < CHUNK / 2u; p += {{ c.wg }}u) {
        let i = 2u * stride * (p / stride) + p % stride;
        let j = i + stride;
        let falling = (i & size) == 0u;
        if (before(value[j], index[j], value[i], index[i]) == falling) {
          let v = value[i];
          value[i] = value[j];
          value[j] = v;
          let n = index[i];
          index[i] = index[j];
          index[j] = n;
        }
      }
      workgroupBarrier();
    }
  }
  for (var i = t; i < {{ s.keep }}u; i += {{ c.wg }}u) {
    top_values[wid.x * {{ s.keep }}u + i] = value[i];
    top_indices[wid.x * {{ s.keep }}u + i] = index[i];
  }
}
