{#- Greedy choice in two dispatches: the best of each slice of the logits, then the best of those,
    which becomes the next token. Ties go to the smaller id. Where only the largest values of slices are
    known, the last one looks for it in the best slice; see codegen/src/kernels/argmax.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
{% if s.last -%}
{{ <step binding={b.run} access="read_write" /> }}
@group(0) @binding({{ b.values }}) var<storage, read> values: array<f32>;
{% if d.slice > 0 -%}
@group(0) @binding({{ b.logits }}) var<storage, read> logits: array<f32>;
{%- else -%}
@group(0) @binding({{ b.indices }}) var<storage, read> indices: array<u32>;
{%- endif %}
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
{%- if d.slice > 0 %}
  var seen = Best(-3.4e38, 0xffffffffu);
  for (var i = t; i < {{ s.n }}u; i += {{ c.wg }}u) { seen = better(seen, Best(values[i], i)); }
  let slice = best_of(t, seen).id;
  workgroupBarrier();
  // Without a number among the values there is no slice, and the token says so.
  let start = min(slice, {{ s.n - 1 }}u) * {{ d.slice }}u;
  let end = select(min(start + {{ d.slice }}u, {{ d.of }}u), start, slice >= {{ s.n }}u);
{%- elif not s.last %}
  let start = wid.x * {{ c.slice }}u;
  let end = min(start + {{ c.slice }}u, {{ s.n }}u);
{%- endif %}
  var mine = Best(-3.4e38, 0xffffffffu);
{%- if s.last and d.slice == 0 %}
  for (var i = t; i < {{ s.n }}u; i += {{ c.wg }}u) { mine = better(mine, Best(values[i], indices[i])); }
{%- else %}
  for (var i = start + t; i < end; i += {{ c.wg }}u) { mine = better(mine, Best(logits[i], i)); }
{%- endif %}
  let best = best_of(t, mine);
  if (t == 0u) {
{%- if s.last %}
    emit_token(best.id);
{%- else %}
    values[wid.x] = best.value;
    indices[wid.x] = best.id;
{%- endif %}
  }
}

struct Best { value: f32, id: u32 }
fn better(a: Best, b: Best) -> Best {
  if (b.value > a.value || (b.value == a.value && b.id < a.id)) { return b; }
  return a;
}

// The best of the workgroup, {% if d.slice > 0 %}in every thread; a second call needs a barrier before it{% else %}in its first thread{% endif %}.
fn best_of(t: u32, mine: Best) -> Best {
  var best = mine;
{%- if c.sg > 1 %}
  for (var step_ = {{ c.sg // 2 }}u; step_ > 0u; step_ >>= 1u) {
    best = better(best, Best(subgroupShuffleXor(best.value, step_), subgroupShuffleXor(best.id, step_)));
  }
{%- endif %}
  if (t % SG == 0u) {
    best_value[t / SG] = best.value;
    best_index[t / SG] = best.id;
  }
  workgroupBarrier();
{%- if d.slice == 0 %}
  if (t > 0u) { return best; }
{%- endif %}
  best = Best(best_value[0], best_index[0]);
  for (var i = 1u; i < {{ c.wg // c.sg }}u; i += 1u) {
    best = better(best, Best(best_value[i], best_index[i]));
  }
  return best;
}
