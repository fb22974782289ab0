{#- `NAME(lane, value)`: the sum (or maximum) over a workgroup, returned to every thread.
    `sg` lanes are combined by shuffles first (1: none), the rest through workgroup memory.
    Every thread of the workgroup must call it. -#}
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
  workgroupBarrier();
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
