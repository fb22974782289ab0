{#- What follows a matrix product, for gemv and gemm alike: `finish(token, quad, y…)` takes
    four results of consecutive rows (GeGLU: four gates and four ups), applies the static
    output grid and the fused operation, and stores one quad.
    `grids` holds [input, output of segment 0, 1, 2, next input]. -#}
{% component finish(epilogue: string, out: string, grids: bool, split_a: integer, split_b: integer,
                    out_stride4: integer, first4: integer, softcap: float) -%}
{% if grids or out == "i8" -%}
{{ <srq /> }}
fn output_grid(row: u32) -> f32 {
{%- if split_a == 0 %}
  return grids[1];
{%- else %}
  return select(select(grids[3], grids[2], row < {{ split_b }}u), grids[1], row < {{ split_a }}u);
{%- endif %}
}
{%- endif %}
{% if epilogue == "geglu" -%}
{{ <gelu /> }}
fn finish(token: u32, quad: u32, gate: vec4<f32>, up: vec4<f32>) {
  {% if grids -%}
  let y = gelu(srq(gate, grids[1])) * srq(up, grids[2]);
  {%- else -%}
  let y = gelu(gate) * up;
  {%- endif %}
{%- else -%}
{% if epilogue == "ple" %}{{ <gelu /> }}{% endif %}
fn finish(token: u32, quad: u32, sum: vec4<f32>) {
  var y = sum;
  {% if grids -%}
  y = srq(y, output_grid(4u * (quad + {{ first4 }}u)));
  {%- endif %}
  {% if epilogue == "ple" -%}
  y = gelu(y) * aux[token * {{ out_stride4 }}u + {{ first4 }}u + quad];
  {%- elif epilogue == "residual" -%}
  y += aux[token * {{ out_stride4 }}u + {{ first4 }}u + quad];
  {%- elif epilogue == "softcap" -%}
  y = {{ softcap }} * tanh(clamp(y / {{ softcap }}, vec4<f32>(-15.0), vec4<f32>(15.0)));
  {%- endif %}
{%- endif %}
  out_put(token * {{ out_stride4 }}u + {{ first4 }}u + quad, y, {% if out == "i8" %}grids[4]{% else %}0.0{% endif %});
}
{%- endcomponent finish %}
