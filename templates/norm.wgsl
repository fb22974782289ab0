{#- x' = (x + RMS(y) * post) * scalar;  h = RMS(x') * pre, quantised where the next matmul wants
    codes. One workgroup a token; see codegen/src/kernels/norm.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
{{ <input name="x" binding={b.x} ty="f32" /> }}
fn x_in(i: u32) -> vec4<f32> { return x_at(i); }
{% if s.residual -%}
{{ <input name="y" binding={b.y} ty={s.y} native={c.f16} /> }}
{{ <input name="post" binding={b.post} ty="f32" /> }}
@group(0) @binding({{ b.sum }}) var<storage, read_write> sum: array<vec4<f32>>;
{%- endif %}
{% if s.scaled -%}
@group(0) @binding({{ b.scalar }}) var<storage, read> scalar: array<f32>;
fn scalar_at() -> f32 { return scalar[0]; }
{%- endif %}
{% if s.norm -%}
{{ <input name="pre" binding={b.pre} ty="f32" /> }}
{%- endif %}
{% if s.out == "i8" -%}
@group(0) @binding({{ b.grids }}) var<storage, read> grids: array<f32>;
{%- endif %}
{% if d.has_out == 1 -%}
{{ <output name="out" binding={b.out} ty={s.out} native={c.f16} /> }}
{%- endif %}
{{ <norm_sums wg={c.wg} sg={c.sg} residual={s.residual} norm={s.norm} /> }}

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let base = wid.x * {{ d.quads }}u;
{{ <norm_row base="base" wg={c.wg} per_thread={d.per_thread} quads={d.quads} width={s.width} eps={s.eps}
    residual={s.residual} scaled={s.scaled} norm={s.norm} keep="true" /> }}
{%- if d.has_out == 1 %}
{%- for i in range(end=d.per_thread) %}
  if (in{{ i }}) { out_put(base + q{{ i }}, x{{ i }}, {% if s.out == "i8" %}grids[0]{% else %}0.0{% endif %}); }
{%- endfor %}
{%- endif %}
}
