{% component gelu() -%}
fn gelu(x: vec4<f32>) -> vec4<f32> {
  // tanh saturates at 1 to f32's precision by 9.1; some drivers return NaN for large arguments.
  let t = clamp(0.7978845608 * (x + 0.044715 * x * x * x), vec4<f32>(-15.0), vec4<f32>(15.0));
  return 0.5 * x * (1.0 + tanh(t));
}
{%- endcomponent gelu %}

{#- A value put on a static int8 grid and back; grid 0 means there is none. -#}
{% component srq() -%}
fn srq(v: vec4<f32>, grid: f32) -> vec4<f32> {
  if (grid == 0.0) { return v; }
  return clamp(round(v / grid), vec4<f32>(-128.0), vec4<f32>(127.0)) * grid;
}
{%- endcomponent srq %}
