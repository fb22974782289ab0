{#- What follows a matrix product, for gemv and gemm alike. `finish(token, quad, y…, beside)` takes
    four results of consecutive rows (GeGLU: four gates and four ups), applies the static output
    grid and the fused operation, and stores one quad. `beside(token, quad)` reads what it needs
    besides the sums; who can do so early does not wait for memory at the end.
    `tops`: of so many results the largest that a thread has had stays in `top_`.
    `grid_at` reads [input, output of segment 0, 1, 2, next input]. -#}
{% component finish(epilogue: string, out: string, grids: bool, split_a: integer, split_b: integer,
                    out_stride4: integer, first4: integer, softcap: float, tops: integer = 0) -%}
{% set has_aux = epilogue == "ple" or epilogue == "residual" -%}
{% if grids or out == "i8" %}{{ <srq /> }}{% endif %}
{%- if tops > 0 %}
var<private> top_: f32 = -3.4e38;
{%- endif %}
struct Beside {
  grid: vec2<f32>,  // output grid; GeGLU: of the gates and of the ups
  next: f32,        // input grid of what comes next
  aux: vec4<f32>,
}
fn beside(token: u32, quad: u32) -> Beside {
  var b: Beside;
  {% if grids and epilogue == "geglu" -%}
  b.grid = vec2<f32>(grid_at(1u), grid_at(2u));
  {%- elif grids and split_a == 0 -%}
  b.grid.x = grid_at(1u);
  {%- elif grids -%}
  let row = 4u * (quad + {{ first4 }}u);
  b.grid.x = select(select(grid_at(3u), grid_at(2u), row < {{ split_b }}u), grid_at(1u), row < {{ split_a }}u);
  {%- endif %}
  {% if out == "i8" %}b.next = grid_at(4u);{% endif %}
  {% if has_aux %}b.aux = aux[token * {{ out_stride4 }}u + {{ first4 }}u + quad];{% endif %}
  return b;
}
{% if epilogue == "geglu" -%}
{{ <gelu /> }}
fn finish(token: u32, quad: u32, gate: vec4<f32>, up: vec4<f32>, b: Beside) {
  {% if grids -%}
  let y = gelu(srq(gate, b.grid.x)) * srq(up, b.grid.y);
  {%- else -%}
  let y = gelu(gate) * up;
  {%- endif %}
{%- else -%}
{% if epilogue == "ple" %}{{ <gelu /> }}{% endif %}
fn finish(token: u32, quad: u32, sum: vec4<f32>, b: Beside) {
  var y = sum;
  {% if grids -%}
  y = srq(y, b.grid.x);
  {%- endif %}
  {% if epilogue == "ple" -%}
  y = gelu(y) * b.aux;
  {%- elif epilogue == "residual" -%}
  y += b.aux;
  {%- elif epilogue == "softcap" -%}
  y = {{ softcap }} * tanh(clamp(y / {{ softcap }}, vec4<f32>(-15.0), vec4<f32>(15.0)));
  {%- endif %}
{%- endif %}
{%- if tops > 0 %}
  let real_ = vec4<u32>(4u * quad) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>({{ tops }}u);
  let live_ = select(vec4<f32>(-3.4e38), y, real_);
  top_ = max(top_, max(max(live_.x, live_.y), max(live_.z, live_.w)));
{%- endif %}
  out_put(token * {{ out_stride4 }}u + {{ first4 }}u + quad, y, b.next);
}
{%- endcomponent finish %}

{#- Declares those grids as a binding. -#}
{% component grids(binding: integer) -%}
@group(0) @binding({{ binding }}) var<storage, read> grids: array<f32>;
fn grid_at(i: u32) -> f32 { return grids[i]; }
{%- endcomponent grids %}
