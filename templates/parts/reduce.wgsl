{#- `NAME(lane, value)`: the sum (or maximum) over a workgroup, returned to every thread.
    `sg` lanes are combined by shuffles first (1: none), the rest through workgroup memory.
    Every thread of the workgroup must call it, and once: a second call could overwrite what others
    still read. -#}
{% component workgroup_reduce(name: string, wg: integer, sg: integer, op: string = "add", ty: string = "f32") -%}
var<workgroup> {{ name }}_partial: array<{{ ty }}, {{ wg // sg }}>;
fn {{ name }}(lane: u32, value: {{ ty }}) -> {{ ty }} {
  var v = value;
{%- if sg > 1 %}
  for (var step_ = {{ sg // 2 }}u; step_ > 0u; step_ >>= 1u) {
    {% if op == "add" %}v += subgroupShuffleXor(v, step_);{% else %}v = max(v, subgroupShuffleXor(v, step_));{% endif %}
  }
{%- endif %}
{%- if wg // sg > 1 %}
  if (lane % {{ sg }}u == 0u) { {{ name }}_partial[lane / {{ sg }}u] = v; }
  workgroupBarrier();
{%- if sg > 1 %}
  v = {{ name }}_partial[0];
  for (var i = 1u; i < {{ wg // sg }}u; i += 1u) {
    {% if op == "add" %}v += {{ name }}_partial[i];{% else %}v = max(v, {{ name }}_partial[i]);{% endif %}
  }
{%- else %}
  for (var half_ = {{ wg // 2 }}u; half_ > 0u; half_ >>= 1u) {
    if (lane < half_) {
      {% if op == "add" -%}
      {{ name }}_partial[lane] += {{ name }}_partial[lane + half_];
      {%- else -%}
      {{ name }}_partial[lane] = max({{ name }}_partial[lane], {{ name }}_partial[lane + half_]);
      {%- endif %}
    }
    workgroupBarrier();
  }
  v = {{ name }}_partial[0];
{%- endif %}
{%- endif %}
  return v;
}
{%- endcomponent workgroup_reduce %}

{#- `NAME(lane, value)`: the sums of four values over a workgroup, as `workgroup_reduce` gives one; for
    subgroups of four lanes or more. Each of four lanes carries one sum, so that a subgroup of 32 needs
    six shuffles instead of twenty. -#}
{% component workgroup_sums4(name: string, wg: integer, sg: integer) -%}
{%- if wg // sg > 1 %}
var<workgroup> {{ name }}_partial: array<f32, {{ 4 * (wg // sg) }}>;
{%- endif %}
fn {{ name }}(lane: u32, value: vec4<f32>) -> vec4<f32> {
  let odd = (lane & 1u) == 1u;
  let upper = (lane & 2u) == 2u;
  let two = select(value.xz, value.yw, odd) + subgroupShuffleXor(select(value.yw, value.xz, odd), 1u);
  // Of the sum `lane % 4`.
  var one = select(two.x, two.y, upper) + subgroupShuffleXor(select(two.y, two.x, upper), 2u);
{%- if sg > 4 %}
  for (var step_ = 4u; step_ < {{ sg }}u; step_ <<= 1u) { one += subgroupShuffleXor(one, step_); }
{%- endif %}
{%- if wg // sg > 1 %}
  if (lane % {{ sg }}u < 4u) { {{ name }}_partial[lane / {{ sg }}u * 4u + lane % 4u] = one; }
  workgroupBarrier();
  one = 0.0;
  for (var i = lane % {{ sg }}u; i < {{ 4 * (wg // sg) }}u; i += {{ sg }}u) { one += {{ name }}_partial[i]; }
{%- if sg > 4 %}
  for (var step_ = 4u; step_ < {{ sg }}u; step_ <<= 1u) { one += subgroupShuffleXor(one, step_); }
{%- endif %}
{%- endif %}
  // All four in every lane.
  let beside_ = subgroupShuffleXor(one, 1u);
  let mine = select(vec2<f32>(one, beside_), vec2<f32>(beside_, one), odd);
  let others = subgroupShuffleXor(mine, 2u);
  return select(vec4<f32>(mine, others), vec4<f32>(others, mine), upper);
}
{%- endcomponent workgroup_sums4 %}
