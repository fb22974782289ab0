{#- x' = (x + RMS(y) * post) * scalar;  h = RMS(x') * pre, quantised where the next matmul wants
    codes. One workgroup a token; see codegen/src/kernels/norm.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
@group(0) @binding({{ b.x }}) var<storage, read> x: array<vec4<f32>>;
{% if s.residual -%}
{{ <input name="y" binding={b.y} ty={s.y} native={c.f16} /> }}
@group(0) @binding({{ b.post }}) var<storage, read> post: array<vec4<f32>>;
@group(0) @binding({{ b.sum }}) var<storage, read_write> sum: array<vec4<f32>>;
{%- endif %}
{% if s.scaled -%}
@group(0) @binding({{ b.scalar }}) var<storage, read> scalar: array<f32>;
{%- endif %}
{% if s.norm -%}
@group(0) @binding({{ b.pre }}) var<storage, read> pre: array<vec4<f32>>;
{%- endif %}
{% if s.out == "i8" -%}
@group(0) @binding({{ b.grids }}) var<storage, read> grids: array<f32>;
{%- endif %}
{% if d.has_out == 1 -%}
{{ <output name="out" binding={b.out} ty={s.out} native={c.f16} /> }}
{%- endif %}
{{ <workgroup_reduce name="workgroup_sum" wg={c.wg} sg={c.sg} /> }}

const QUADS = {{ d.quads }}u;
const WIDTH = {{ s.width }}.0;

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let base = wid.x * QUADS;
  var squares = 0.0;
{%- for i in range(end=d.per_thread) %}
  let q{{ i }} = t + {{ i * c.wg }}u;
  let in{{ i }} = q{{ i }} < QUADS;
  var x{{ i }} = vec4<f32>();
  if (in{{ i }}) { x{{ i }} = x[base + q{{ i }}]; }
{%- endfor %}
{%- if s.residual %}
{%- for i in range(end=d.per_thread) %}
  var y{{ i }} = vec4<f32>();
  var post{{ i }} = vec4<f32>();
  if (in{{ i }}) {
    y{{ i }} = y_at(base + q{{ i }});
    post{{ i }} = post[q{{ i }}];
  }
  squares += dot(y{{ i }}, y{{ i }});
{%- endfor %}
{%- endif %}
{#- All loads come before the first sum: behind its barriers each would be waited for again. #}
{%- if s.norm %}
{%- for i in range(end=d.per_thread) %}
  var pre{{ i }} = vec4<f32>();
  if (in{{ i }}) { pre{{ i }} = pre[q{{ i }}]; }
{%- endfor %}
{%- endif %}
{%- if s.residual %}
  let ry = 1.0 / sqrt(workgroup_sum(t, squares) / WIDTH + {{ s.eps }});
  squares = 0.0;
{%- for i in range(end=d.per_thread) %}
  if (in{{ i }}) {
    x{{ i }} += y{{ i }} * ry * post{{ i }};
{%- if s.scaled %}
    x{{ i }} *= scalar[0];
{%- endif %}
    sum[base + q{{ i }}] = x{{ i }};
  }
{%- endfor %}
{%- endif %}
{%- if s.norm %}
{%- for i in range(end=d.per_thread) %}
  squares += dot(x{{ i }}, x{{ i }});
{%- endfor %}
  let rx = 1.0 / sqrt(workgroup_sum(t, squares) / WIDTH + {{ s.eps }});
{%- for i in range(end=d.per_thread) %}
  x{{ i }} = x{{ i }} * rx * pre{{ i }};
{%- endfor %}
{%- endif %}
{%- if d.has_out == 1 %}
{%- for i in range(end=d.per_thread) %}
  if (in{{ i }}) { out_put(base + q{{ i }}, x{{ i }}, {% if s.out == "i8" %}grids[0]{% else %}0.0{% endif %}); }
{%- endfor %}
{%- endif %}
}
