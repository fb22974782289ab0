{#- Greedy choice in two dispatches: the best of each slice of the logits, then the best of those,
    which becomes the next token. Ties go to the smaller id; see codegen/src/kernels/argmax.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
{% if s.last -%}
{{ <step binding={b.run} access="read_write" /> }}
@group(0) @binding({{ b.values }}) var<storage, read> values: array<f32>;
@group(0) @binding({{ b.indices }}) var<storage, read> indices: array<u32>;
@group(0) @binding({{ b.ids }}) var<storage, read_write> ids: array<u32>;
@group(0) @binding({{ b.chosen }}) var<storage, read_write> chosen: array<u32>;
{{ <emit_token ring={s.ring} /> }}
{%- else -%}
@group(0) @binding({{ b.logits }}) var<storage, read> logits: array<f32>;
@group(0) @binding({{ b.values }}) var<storage, read_write> values: array<f32>;
@group(0) @binding({{ b.indices }}) var<storage, read_write> indices: array<u32>;
{%- endif %}

const SG = {{ c.sg }}u;
var<workgroup> best_value: array<f32, {{ c.wg // c.sg }}>;
var<workgroup> best_index: array<u32, {{ c.wg // c.sg }}>;

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  var value = -3.4e38;
  var index = 0xffffffffu;
{%- if s.last %}
  for (var i = t; i < {{ s.n }}u; i += {{ c.wg }}u) {
    let v = values[i];
    let id = indices[i];
{%- else %}
  let start = wid.x * {{ c.slice }}u;
  for (var i = start + t; i < min(start + {{ c.slice }}u, {{ s.n }}u); i += {{ c.wg }}u) {
    let v = logits[i];
    let id = i;
{%- endif %}
    if (v > value || (v == value && id < index)) {
      value = v;
      index = id;
    }
  }
{%- if c.sg > 1 %}
  for (var step_ = {{ c.sg // 2 }}u; step_ > 0u; step_ >>= 1u) {
    let v = subgroupShuffleXor(value, step_);
    let id = subgroupShuffleXor(index, step_);
    if (v > value || (v == value && id < index)) {
      value = v;
      index = id;
    }
  }
{%- endif %}
  if (t % SG == 0u) {
    best_value[t / SG] = value;
    best_index[t / SG] = index;
  }
  workgroupBarrier();
  if (t == 0u) {
    for (var i = 1u; i < {{ c.wg // c.sg }}u; i += 1u) {
      let v = best_value[i];
      let id = best_index[i];
      if (v > value || (v == value && id < index)) {
        value = v;
        index = id;
      }
    }
{%- if s.last %}
    emit_token(index);
{%- else %}
    values[wid.x] = value;
    indices[wid.x] = index;
{%- endif %}
  }
}
