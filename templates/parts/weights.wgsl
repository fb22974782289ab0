{#- Four consecutive columns of integer weights out of one word, as int8 lanes that carry the
    factor 2^(8 - bits): fields are used in place, in two's complement, so there is no zero point.
    Emits `field_J(word)` for each J. -#}
{% component fields(format: string) -%}
{% if format == "i8" -%}
fn field_0(w: u32) -> u32 { return w; }
{%- elif format == "i4" -%}
fn field_0(w: u32) -> u32 { return (w << 4u) & 0xf0f0f0f0u; }
fn field_1(w: u32) -> u32 { return w & 0xf0f0f0f0u; }
{%- elif format == "i2" -%}
fn field_0(w: u32) -> u32 { return (w << 6u) & 0xc0c0c0c0u; }
fn field_1(w: u32) -> u32 { return (w << 4u) & 0xc0c0c0c0u; }
fn field_2(w: u32) -> u32 { return (w << 2u) & 0xc0c0c0c0u; }
fn field_3(w: u32) -> u32 { return w & 0xc0c0c0c0u; }
{%- endif %}
fn lanes(w: u32) -> vec4<f32> { return vec4<f32>(unpack4xI8(w)); }
{%- endcomponent fields %}

{#- Declares weight rows of `quads` quads and `NAME_quad(row, quad) -> vec4<f32>` or, for integers,
    `-> u32` of int8 lanes (factor as above); `fours`: integer rows lie in fours. For kernels that
    walk a tile quad by quad; gemv reads 16 bytes at a time instead. -#}
{% component weight_quads(name: string, binding: integer, format: string, quads: integer, fours: bool) -%}
{% if format == "f32" -%}
@group(0) @binding({{ binding }}) var<storage, read> {{ name }}: array<vec4<f32>>;
fn {{ name }}_quad(row: u32, quad: u32) -> vec4<f32> { return {{ name }}[row * {{ quads }}u + quad]; }
{%- elif format == "f16" -%}
@group(0) @binding({{ binding }}) var<storage, read> {{ name }}: array<vec2<u32>>;
fn {{ name }}_quad(row: u32, quad: u32) -> vec4<f32> {
  let w = {{ name }}[row * {{ quads }}u + quad];
  return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));
}
{%- elif format == "bf16" -%}
@group(0) @binding({{ binding }}) var<storage, read> {{ name }}: array<vec2<u32>>;
fn {{ name }}_quad(row: u32, quad: u32) -> vec4<f32> {
  let w = {{ name }}[row * {{ quads }}u + quad];
  return bitcast<vec4<f32>>(vec4<u32>(w.x << 16u, w.x & 0xffff0000u, w.y << 16u, w.y & 0xffff0000u));
}
{%- else -%}
{% set per_word = 4 if format == "i2" else (2 if format == "i4" else 1) -%}
@group(0) @binding({{ binding }}) var<storage, read> {{ name }}: array<u32>;
fn {{ name }}_quad(row: u32, quad: u32) -> u32 {
{%- if fours %}
  let w = {{ name }}[(row / 4u * {{ quads // per_word }}u + quad / {{ per_word }}u) * 4u + row % 4u];
{%- else %}
  let w = {{ name }}[row * {{ quads // per_word }}u + quad / {{ per_word }}u];
{%- endif %}
{%- if format == "i8" %}
  return w;
{%- elif format == "i4" %}
  return (w << (4u - 4u * (quad & 1u))) & 0xf0f0f0f0u;
{%- else %}
  return (w << (6u - 2u * (quad & 3u))) & 0xc0c0c0c0u;
{%- endif %}
}
{%- endif %}
{%- endcomponent weight_quads %}

{#- Declares the scales of a table's rows. -#}
{% component table_scales(binding: integer, scale: string, native: bool) -%}
{% if scale == "group" -%}
{%- if native -%}
@group(0) @binding({{ binding }}) var<storage, read> scales: array<f16>;
fn group_scale(i: u32) -> f32 { return f32(scales[i]); }
{%- else -%}
@group(0) @binding({{ binding }}) var<storage, read> scales: array<u32>;
fn group_scale(i: u32) -> f32 {
  let pair = unpack2x16float(scales[i >> 1u]);
  return select(pair.x, pair.y, (i & 1u) == 1u);
}
{%- endif -%}
{%- else -%}
@group(0) @binding({{ binding }}) var<storage, read> scales: array<f32>;
{%- endif %}
{%- endcomponent table_scales %}

{#- `v`: the weights of quad `q` of a table's `row`, where integers carry `factor`. -#}
{% component table_weights(format: string, factor: integer) -%}
let raw = table_quad(row, q);
{%- if format == "i8" or format == "i4" or format == "i2" %}
  let v = vec4<f32>(unpack4xI8(raw)) * {{ 1.0 / factor }};
{%- else %}
  let v = raw;
{%- endif %}
{%- endcomponent table_weights %}

{#- What quad `q` of a table's `row` stands for, where `v` are its weights and `part` its part. -#}
{% component table_value(scale: string, multiplier: float, fours: bool, groups: integer, parts: integer) -%}
{% if scale == "row" -%}
(v * scales[row]) * {{ multiplier }}
{%- elif scale == "group" -%}
(v * group_scale({% if fours %}(row / 4u * {{ groups }}u + q / 8u) * 4u + row % 4u{% else %}row * {{ groups }}u + q / 8u{% endif %})) * {{ multiplier }}
{%- elif scale == "parts" -%}
(v * scales[row * {{ parts }}u + part]) * {{ multiplier }}
{%- else -%}
v * {{ multiplier }}
{%- endif %}
{%- endcomponent table_value %}
