{#- Per-layer inputs of a token: ple[layer] = (RMS(context[layer] * scale) * w + table[layer]) / sqrt(2).
    One workgroup a (token, layer). `table` holds the token's row, or is the whole table; sums of later
    dispatches may be cleared beside; see codegen/src/kernels/ple_mix.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
{{ <input name="context" binding={b.context} ty={s.context} native={c.f16} /> }}
{% if s.gather -%}
{% set g = s.gather -%}
{% set scale = g.scale if g.scale == "row" or g.scale == "group" or g.scale == "none" else "parts" -%}
{% if not g.by_slot -%}
@group(0) @binding({{ b.ids }}) var<storage, read> ids: array<u32>;
{%- endif %}
{{ <weight_quads name="table" binding={b.table} format={g.format} quads={d.row_quads} fours={d.fours == 1} /> }}
{% if scale != "none" -%}
{{ <table_scales binding={b.scales} scale={scale} native={c.f16} /> }}
{%- endif %}
{%- else -%}
@group(0) @binding({{ b.table }}) var<storage, read> table: array<vec4<f32>>;
{%- endif %}
@group(0) @binding({{ b.weight }}) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding({{ b.out }}) var<storage, read_write> out: array<vec4<f32>>;
{%- if s.zeros %}
@group(0) @binding({{ b.a }}) var<storage, read_write> a: array<vec4<u32>>;
@group(0) @binding({{ b.b }}) var<storage, read_write> b: array<vec4<u32>>;
{%- endif %}
{{ <workgroup_reduce name="workgroup_sum" wg={c.wg} sg={c.sg} /> }}

const QUADS = {{ d.quads }}u;        // of one layer's input
const ROW = {{ d.row_quads }}u;      // of a token in `context` and `table`
const OUT = {{ d.out_quads }}u;      // of a token in `out`, one layer
{% if s.gather -%}
// Quad `q` of row `row` of the table.
fn gathered(row: u32, q: u32) -> vec4<f32> {
  {{ <table_weights format={g.format} factor={d.factor} /> }}
{%- if scale == "parts" %}
  let part = min(q / {{ d.part_quads }}u, {{ d.parts - 1 }}u);
{%- endif %}
  return {{ <table_value scale={scale} multiplier={g.multiplier} fours={d.fours == 1} groups={d.groups} parts={d.parts} /> }};
}
{%- endif %}

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
{%- if s.gather %}
  // The table's row is on its way before anything else; it is the only one to come from far.
{%- if g.by_slot %}
  let row = 0u;
{%- else %}
  let row = min(ids[0] - {{ g.first }}u, {{ g.rows - 1 }}u);
{%- endif %}
{%- for i in range(end=d.per) %}
  let e{{ i }} = gathered(row, wid.y * QUADS + min(t + {{ i * c.wg }}u, QUADS - 1u));
{%- endfor %}
{%- endif %}
  let base = wid.x * ROW + wid.y * QUADS;
  var squares = 0.0;
  for (var q = t; q < QUADS; q += {{ c.wg }}u) {
    let v = context_at(base + q) * {{ s.scale }};
    squares += dot(v, v);
  }
{%- if s.zeros %}
  for (var i = wid.y * {{ c.wg }}u + t; i < {{ d.a_quads }}u; i += {{ s.layers * c.wg }}u) { a[i] = vec4<u32>(); }
  for (var i = wid.y * {{ c.wg }}u + t; i < {{ d.b_quads }}u; i += {{ s.layers * c.wg }}u) { b[i] = vec4<u32>(); }
{%- endif %}
  let r = 1.0 / sqrt(workgroup_sum(t, squares) / {{ s.dim }}.0 + {{ s.eps }});
{%- if s.gather %}
{%- for i in range(end=d.per) %}
  let q{{ i }} = t + {{ i * c.wg }}u;
  if (q{{ i }} < QUADS) {
    let v = context_at(base + q{{ i }}) * {{ s.scale }};
    out[wid.y * {{ d.layer_quads }}u + wid.x * OUT + q{{ i }}] = (v * r * weight[q{{ i }}] + e{{ i }}) * 0.70710678118654752;
  }
{%- endfor %}
{%- else %}
  for (var q = t; q < QUADS; q += {{ c.wg }}u) {
    let v = context_at(base + q) * {{ s.scale }};
    out[wid.y * {{ d.layer_quads }}u + wid.x * OUT + q] = (v * r * weight[q] + table[base + q]) * 0.70710678118654752;
  }
{%- endif %}
}
