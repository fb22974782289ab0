{#- Declares a read-only vector of quads (four elements) and `NAME_at(quad) -> vec4<f32>`.
    f16 is read natively or, without WGSL's f16, through unpack2x16float. -#}
{% component input(name: string, binding: integer, ty: string, native: bool = false) -%}
{% if ty == "f32" -%}
@group(0) @binding({{ binding }}) var<storage, read> {{ name }}: array<vec4<f32>>;
fn {{ name }}_at(i: u32) -> vec4<f32> { return {{ name }}[i]; }
{%- elif ty == "f16" and native -%}
@group(0) @binding({{ binding }}) var<storage, read> {{ name }}: array<vec4<f16>>;
fn {{ name }}_at(i: u32) -> vec4<f32> { return vec4<f32>({{ name }}[i]); }
{%- elif ty == "f16" -%}
@group(0) @binding({{ binding }}) var<storage, read> {{ name }}: array<vec2<u32>>;
fn {{ name }}_at(i: u32) -> vec4<f32> {
  let w = {{ name }}[i];
  return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));
}
{%- else -%}
@group(0) @binding({{ binding }}) var<storage, read> {{ name }}: array<u32>;
fn {{ name }}_at(i: u32) -> u32 { return {{ name }}[i]; }
{%- endif %}
{%- endcomponent input %}

{#- Declares a written vector of quads and `NAME_put(quad, value, grid)`; int8 codes are
    rounded half to even (WGSL's `round`) and saturate. -#}
{% component output(name: string, binding: integer, ty: string, native: bool = false) -%}
{% if ty == "f32" -%}
@group(0) @binding({{ binding }}) var<storage, read_write> {{ name }}: array<vec4<f32>>;
fn {{ name }}_put(i: u32, value: vec4<f32>, grid: f32) { {{ name }}[i] = value; }
{%- elif ty == "f16" and native -%}
@group(0) @binding({{ binding }}) var<storage, read_write> {{ name }}: array<vec4<f16>>;
fn {{ name }}_put(i: u32, value: vec4<f32>, grid: f32) { {{ name }}[i] = vec4<f16>(value); }
{%- elif ty == "f16" -%}
@group(0) @binding({{ binding }}) var<storage, read_write> {{ name }}: array<vec2<u32>>;
fn {{ name }}_put(i: u32, value: vec4<f32>, grid: f32) {
  {{ name }}[i] = vec2<u32>(pack2x16float(value.xy), pack2x16float(value.zw));
}
{%- else -%}
@group(0) @binding({{ binding }}) var<storage, read_write> {{ name }}: array<u32>;
fn {{ name }}_put(i: u32, value: vec4<f32>, grid: f32) {
  let q = vec4<i32>(clamp(round(value / grid), vec4<f32>(-128.0), vec4<f32>(127.0)));
  {{ name }}[i] = pack4xI8(q);
}
{%- endif %}
{%- endcomponent output %}
