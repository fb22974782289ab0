{#- Y = X W^T for many tokens: tiles of X and W pass through workgroup memory, each thread keeps
    `tm` tokens by four rows (GeGLU: eight) in registers; see codegen/src/kernels/gemm.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
{% set int = s.x == "i8" -%}
{% set int_weights = s.format == "i8" or s.format == "i4" or s.format == "i2" -%}
{% set acc = "i32" if int else "f32" -%}
{% set elem = "u32" if int else ("vec4<f16>" if c.f16_tile else "vec4<f32>") -%}
{% set words = ["x", "y", "z", "w"] -%}
{{ <step binding={b.run} /> }}
{{ <weight_quads name="w" binding={b.w} format={s.format} quads={d.row_quads} fours={int_weights} /> }}
{% if s.scale == "row" -%}
@group(0) @binding({{ b.scales }}) var<storage, read> scales: array<vec4<f32>>;
{%- elif s.scale == "group" -%}
@group(0) @binding({{ b.scales }}) var<storage, read> scales: array<u32>;
fn group_scale(i: u32) -> f32 {
  let pair = unpack2x16float(scales[i >> 1u]);
  return select(pair.x, pair.y, (i & 1u) == 1u);
}
{%- endif %}
{{ <input name="x" binding={b.x} ty={s.x} native={c.f16} /> }}
{% if d.has_grids == 1 -%}
{{ <grids binding={b.grids} /> }}
{%- endif %}
{% if s.epilogue == "ple" or s.epilogue == "residual" -%}
@group(0) @binding({{ b.aux }}) var<storage, read> aux: array<vec4<f32>>;
{%- endif %}
{{ <output name="out" binding={b.out} ty={s.out} native={c.f16} /> }}
{% if int_weights and not int -%}
fn lanes(w: u32) -> vec4<f32> { return vec4<f32>(unpack4xI8(w)); }
{%- endif %}
{{ <finish epilogue={s.epilogue} out={s.out} grids={s.grids} split_a={s.split_a} split_b={s.split_b}
    out_stride4={d.out_stride4} first4={d.first4} softcap={s.softcap} /> }}

const BM = {{ c.bm }}u;              // tokens of a tile
const BN = {{ c.bn }}u;              // rows of a tile
const BK = {{ c.bk }}u;              // quads of columns of a tile
const PITCH = {{ c.bk + 1 }}u;       // one more, so that neighbours fall on other banks
const TM = {{ c.tm }}u;
const TN = {{ d.tn }}u;
const ALL_ROWS = {{ d.padded_rows }}u;
const QUADS = {{ d.row_quads }}u;    // quads of a padded row

var<workgroup> xs: array<{{ elem }}, {{ c.bm * (c.bk + 1) }}>;
var<workgroup> ws: array<{{ elem }}, {{ c.bn * (c.bk + 1) }}>;

@compute @workgroup_size({{ d.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let token0 = wid.x * BM;
  let row0 = wid.y * BN;
  let tn = t % (BN / TN) * TN;
  let tm = t / (BN / TN) * TM;
{%- for m in range(end=c.tm) %}{% for n in range(end=d.tn) %}
  var a{{ m }}_{{ n }}: {{ acc }} = 0{% if not int %}.0{% endif %};
{%- endfor %}{% endfor %}
  for (var k = 0u; k < QUADS; k += BK) {
    for (var i = t; i < BM * BK; i += {{ d.wg }}u) {
      let token = min(token0 + i / BK, run.tokens - 1u);
      xs[i / BK * PITCH + i % BK] = {% if c.f16_tile %}vec4<f16>{% endif %}(x_at(token * QUADS + k + i % BK));
    }
    for (var i = t; i < BN * BK; i += {{ d.wg }}u) {
{%- if int_weights %}
      // Rows lie in fours: neighbouring threads read neighbouring words.
      let r = i / (4u * BK) * 4u + i % 4u;
      let column = i / 4u % BK;
{%- else %}
      let r = i / BK;
      let column = i % BK;
{%- endif %}
      let row = min(row0 + r, ALL_ROWS - 1u);
      let q = w_quad(row, k + column);
{%- if int or not int_weights %}
      ws[r * PITCH + column] = {% if c.f16_tile %}vec4<f16>{% endif %}(q);
{%- elif s.scale == "group" %}
      ws[r * PITCH + column] = {% if c.f16_tile %}vec4<f16>{% endif %}(lanes(q) * ({{ 1.0 / d.factor }} * group_scale((row / 4u * {{ d.groups }}u + (k + column) / 8u) * 4u + row % 4u)));
{%- else %}
      ws[r * PITCH + column] = {% if c.f16_tile %}vec4<f16>{% endif %}(lanes(q) * {{ 1.0 / d.factor }});
{%- endif %}
    }
    workgroupBarrier();
    for (var q = 0u; q < BK; q += 1u) {
{%- for m in range(end=c.tm) %}
      let x{{ m }} = {% if c.f16_tile %}vec4<f32>{% endif %}(xs[(tm + {{ m }}u) * PITCH + q]);
{%- endfor %}
{%- for n in range(end=d.tn) %}
      let w{{ n }} = {% if c.f16_tile %}vec4<f32>{% endif %}(ws[(tn + {{ n }}u) * PITCH + q]);
{%- for m in range(end=c.tm) %}
      a{{ m }}_{{ n }} += {% if int %}dot4I8Packed{% else %}dot{% endif %}(x{{ m }}, w{{ n }});
{%- endfor %}
{%- endfor %}
    }
    workgroupBarrier();
  }
  let quad = (row0 + tn) / TN;
  if (quad < {{ d.out_quads }}u) {
{%- for m in range(end=c.tm) %}
    if (token0 + tm + {{ m }}u < run.tokens) {
{%- if s.epilogue == "geglu" %}
      finish(token0 + tm + {{ m }}u, quad,
        total(vec4<{{ acc }}>(a{{ m }}_0, a{{ m }}_1, a{{ m }}_2, a{{ m }}_3), 2u * quad),
        total(vec4<{{ acc }}>(a{{ m }}_4, a{{ m }}_5, a{{ m }}_6, a{{ m }}_7), 2u * quad + 1u),
        beside(token0 + tm + {{ m }}u, quad));
{%- else %}
      finish(token0 + tm + {{ m }}u, quad, total(vec4<{{ acc }}>(a{{ m }}_0, a{{ m }}_1, a{{ m }}_2, a{{ m }}_3), quad),
        beside(token0 + tm + {{ m }}u, quad));
{%- endif %}
    }
{%- endfor %}
  }
}

fn total(v: vec4<{{ acc }}>, scale_quad: u32) -> vec4<f32> {
{%- if int %}
  return vec4<f32>(v >> vec4<u32>({{ d.shift }}u)) * (grid_at(0u) * scales[scale_quad]);
{%- elif s.scale == "row" %}
  return v * scales[scale_quad];
{%- else %}
  return v;
{%- endif %}
}
