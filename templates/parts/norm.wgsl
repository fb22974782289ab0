{#- A row of the residual stream in the registers of a workgroup, quads `t`, `t + wg`, … as x0, x1, …:
    x' = (x + RMS(y) * post) * scalar, then RMS(x') * pre; which of it is the caller's choice.
    Uses `x_in`, `y_at`, `post_at`, `pre_at` (by quad), `scalar_at` and `row_sums`, declared by
    `norm_sums`; stores x' to `sum` where `keep` holds. All loads come before the sums, and both
    norms take one reduction: behind its barriers each load would be waited for again.
    With s = scalar, r = 1 / RMS(y) and p = post:
    sum x'^2 = s^2 (sum x^2 + 2 r sum x y p + r^2 sum (y p)^2). -#}
{% component norm_row(base: string, wg: integer, per_thread: integer, quads: integer, width: integer,
                      eps: float, residual: bool, scaled: bool, norm: bool, keep: string) -%}
{%- for i in range(end=per_thread) %}
  let q{{ i }} = t + {{ i * wg }}u;
  let in{{ i }} = q{{ i }} < {{ quads }}u;
  var x{{ i }} = vec4<f32>();
{%- if residual %}
  var y{{ i }} = vec4<f32>();
  var post{{ i }} = vec4<f32>();
{%- endif %}
{%- if norm %}
  var pre{{ i }} = vec4<f32>();
{%- endif %}
  if (in{{ i }}) {
    x{{ i }} = x_in({{ base }} + q{{ i }});
{%- if residual %}
    y{{ i }} = y_at({{ base }} + q{{ i }});
    post{{ i }} = post_at(q{{ i }});
{%- endif %}
{%- if norm %}
    pre{{ i }} = pre_at(q{{ i }});
{%- endif %}
  }
{%- endfor %}
{%- if residual or norm %}
{#- (y y, x x, x y p, (y p)^2), as far as they are needed. #}
  var sums_ = {% if residual and norm %}vec4<f32>(){% else %}0.0{% endif %};
{%- for i in range(end=per_thread) %}
{%- if residual and norm %}
  let yp{{ i }} = y{{ i }} * post{{ i }};
  sums_ += vec4<f32>(dot(y{{ i }}, y{{ i }}), dot(x{{ i }}, x{{ i }}), dot(x{{ i }}, yp{{ i }}), dot(yp{{ i }}, yp{{ i }}));
{%- elif residual %}
  sums_ += dot(y{{ i }}, y{{ i }});
{%- else %}
  sums_ += dot(x{{ i }}, x{{ i }});
{%- endif %}
{%- endfor %}
  let all_ = row_sums(t, sums_);
{%- endif %}
{%- if residual %}
  let ry = 1.0 / sqrt(all_{% if norm %}.x{% endif %} / {{ width }}.0 + {{ eps }});
{%- for i in range(end=per_thread) %}
  x{{ i }} = (x{{ i }} + {% if norm %}yp{{ i }}{% else %}y{{ i }} * post{{ i }}{% endif %} * ry){% if scaled %} * scalar_at(){% endif %};
{%- endfor %}
  if ({{ keep }}) {
{%- for i in range(end=per_thread) %}
    if (in{{ i }}) { sum[{{ base }} + q{{ i }}] = x{{ i }}; }
{%- endfor %}
  }
{%- endif %}
{%- if norm %}
{%- if residual %}
  let squares = {% if scaled %}scalar_at() * scalar_at() * {% endif %}max(0.0, all_.y + ry * (2.0 * all_.z + ry * all_.w));
  let rx = 1.0 / sqrt(squares / {{ width }}.0 + {{ eps }});
{%- else %}
  let rx = 1.0 / sqrt(all_ / {{ width }}.0 + {{ eps }});
{%- endif %}
{%- for i in range(end=per_thread) %}
  x{{ i }} *= rx * pre{{ i }};
{%- endfor %}
{%- endif %}
{%- endcomponent norm_row %}

{#- The reduction `norm_row` needs. -#}
{% component norm_sums(wg: integer, sg: integer, residual: bool, norm: bool) -%}
{% if residual and norm and sg >= 4 -%}
{{ <workgroup_sums4 name="row_sums" wg={wg} sg={sg} /> }}
{%- elif residual and norm -%}
{{ <workgroup_reduce name="row_sums" wg={wg} sg={sg} ty="vec4<f32>" /> }}
{%- elif residual or norm -%}
{{ <workgroup_reduce name="row_sums" wg={wg} sg={sg} /> }}
{%- endif %}
{%- endcomponent norm_sums %}

{#- The stream and the constants of norms that come before a product, as gemv::Shape::norm lays them
    out. -#}
{% component norm_site(x: integer, site: integer, quads: integer) -%}
// The residual stream, and what the norms that come first need of this product: post, pre, scalar
// and grids.
{{ <input name="x" binding={x} ty="f32" /> }}
fn x_in(i: u32) -> vec4<f32> { return x_at(i); }
@group(0) @binding({{ site }}) var<storage, read> site: array<vec4<f32>>;
fn post_at(i: u32) -> vec4<f32> { return site[i]; }
fn pre_at(i: u32) -> vec4<f32> { return site[{{ quads }}u + i]; }
fn scalar_at() -> f32 { return site[{{ 2 * quads }}u].x; }
fn grid_at(i: u32) -> f32 { return site[{{ 2 * quads + 16 }}u + i / 4u][i % 4u]; }
{%- endcomponent norm_site %}

{#- What such norms add to the stream, and where the sum goes. -#}
{% component norm_residual(y: integer, ty: string, sum: integer, quads: integer, native: bool, banks: integer) -%}
{% if ty == "i32" -%}
@group(0) @binding({{ y }}) var<storage, read> y: array<vec4<i32>>;
// Sums of codes: scaled as their rows are, on the output grid of the product they belong to.
fn y_at(i: u32) -> vec4<f32> {
  let v = vec4<f32>(y[i]{% for k in range(end=banks) %}{% if k > 0 %} + y[{{ k * quads }}u + i]{% endif %}{% endfor %}) * site[{{ 2 * quads + 32 }}u + i];
  let grid = site[{{ 2 * quads }}u].y;
  if (grid == 0.0) { return v; }
  return clamp(round(v / grid), vec4<f32>(-128.0), vec4<f32>(127.0)) * grid;
}
{%- elif ty == "fixed" -%}
@group(0) @binding({{ y }}) var<storage, read> y: array<vec4<i32>>;
// Sums of floats: 2^-23 and, 16 quads later, ones.
fn y_at(i: u32) -> vec4<f32> {
  let at = i / 16u * 32u + i % 16u;
  let fine = y[at];
  let whole = y[at + 16u];
  return vec4<f32>(whole) + vec4<f32>(fine) / 8388608.0;
}
{%- else -%}
{{ <input name="y" binding={y} ty={ty} native={native} /> }}
{%- endif %}
@group(0) @binding({{ sum }}) var<storage, read_write> sum: array<vec4<f32>>;
{%- endcomponent norm_residual %}

{#- `put_codes(quad, value, grid)`: what norms put out as codes in the workgroup's `xs`, where a word of
    integer weights meets `fields` quads. -#}
{% component put_codes(fields: integer) -%}
fn put_codes(i: u32, v: vec4<f32>, grid: f32) {
  let q = vec4<i32>(clamp(round(v / grid), vec4<f32>(-128.0), vec4<f32>(127.0)));
  xs[i{% if fields > 1 %} / {{ fields }}u][i % {{ fields }}u]{% else %}]{% endif %} = pack4xI8(q);
}
{%- endcomponent put_codes %}
