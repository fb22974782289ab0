{#- out[token] = table[id] * scale * multiplier, as f32. Rows outside [first, first + rows) belong
    to another binding of a split table and are left alone; see codegen/src/kernels/gather.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
{% set int_weights = s.format == "i8" or s.format == "i4" or s.format == "i2" -%}
{% if not s.by_slot -%}
@group(0) @binding({{ b.ids }}) var<storage, read> ids: array<u32>;
{%- endif %}
{{ <weight_quads name="table" binding={b.table} format={s.format} quads={d.quads} fours={d.fours == 1} /> }}
{% if s.scale == "group" -%}
{%- if c.f16 -%}
@group(0) @binding({{ b.scales }}) var<storage, read> scales: array<f16>;
fn group_scale(i: u32) -> f32 { return f32(scales[i]); }
{%- else -%}
@group(0) @binding({{ b.scales }}) var<storage, read> scales: array<u32>;
fn group_scale(i: u32) -> f32 {
  let pair = unpack2x16float(scales[i >> 1u]);
  return select(pair.x, pair.y, (i & 1u) == 1u);
}
{%- endif -%}
{%- elif s.scale != "none" -%}
@group(0) @binding({{ b.scales }}) var<storage, read> scales: array<f32>;
{%- endif %}
@group(0) @binding({{ b.out }}) var<storage, read_write> out: array<vec4<f32>>;

const QUADS = {{ d.quads }}u;

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let q = wid.y * {{ c.wg }}u + t;
{%- if s.by_slot %}
  let row = wid.x;
{%- else %}
  let id = ids[wid.x];
  let row = id - {{ s.first }}u;
  if (id < {{ s.first }}u || row >= {{ s.rows }}u) { return; }
{%- endif %}
  if (q >= QUADS) { return; }
  let raw = table_quad(row, q);
{%- if int_weights %}
  let v = vec4<f32>(unpack4xI8(raw)) * {{ 1.0 / d.factor }};
{%- else %}
  let v = raw;
{%- endif %}
{%- if s.scale == "row" %}
  out[wid.x * QUADS + q] = (v * scales[row]) * {{ s.multiplier }};
{%- elif s.scale == "group" %}
  out[wid.x * QUADS + q] = (v * group_scale({% if d.fours == 1 %}(row / 4u * {{ d.groups }}u + q / 8u) * 4u + row % 4u{% else %}row * {{ d.groups }}u + q / 8u{% endif %})) * {{ s.multiplier }};
{%- elif s.scale != "none" %}
  // The padding of the last part has no scale of its own; its weights are zero.
  let part = min(q / {{ d.part_quads }}u, {{ d.parts - 1 }}u);
  out[wid.x * QUADS + q] = (v * scales[row * {{ d.parts }}u + part]) * {{ s.multiplier }};
{%- else %}
  out[wid.x * QUADS + q] = v * {{ s.multiplier }};
{%- endif %}
}
