{#- y = W x for one token: every weight is read once, 16 bytes a lane at a time.
    A group of `lanes` threads shares `rows` rows; see codegen/src/kernels/gemv.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
{% set int = s.x == "i8" -%}
{% set int_weights = s.format == "i8" or s.format == "i4" or s.format == "i2" -%}
{% set acc = "i32" if int else "f32" -%}
{% set words = ["x", "y", "z", "w"] -%}
@group(0) @binding({{ b.w }}) var<storage, read> w: array<vec4<u32>>;
{% if s.scale == "row" -%}
@group(0) @binding({{ b.scales }}) var<storage, read> scales: array<vec4<f32>>;
{%- elif s.scale == "group" -%}
@group(0) @binding({{ b.scales }}) var<storage, read> scales: array<u32>;
fn group_scale(i: u32) -> f32 {
  let pair = unpack2x16float(scales[i >> 1u]);
  return select(pair.x, pair.y, (i & 1u) == 1u);
}
{%- endif %}
{% if int -%}
@group(0) @binding({{ b.x }}) var<storage, read> x: array<vec4<u32>>;
{%- else -%}
{{ <input name="x" binding={b.x} ty={s.x} native={c.f16} /> }}
{%- endif %}
{% if d.has_grids == 1 -%}
@group(0) @binding({{ b.grids }}) var<storage, read> grids: array<f32>;
{%- endif %}
{% if s.epilogue == "ple" or s.epilogue == "residual" -%}
@group(0) @binding({{ b.aux }}) var<storage, read> aux: array<vec4<f32>>;
{%- endif %}
{{ <output name="out" binding={b.out} ty={s.out} native={c.f16} /> }}
{% if int_weights %}{{ <fields format={s.format} /> }}{% endif %}
{{ <finish epilogue={s.epilogue} out={s.out} grids={s.grids} split_a={s.split_a} split_b={s.split_b}
    out_stride4={d.out_stride4} first4={d.first4} softcap={s.softcap} /> }}

const LANES = {{ c.lanes }}u;
const ROWS = {{ c.rows }}u;          // rows a group of lanes computes
const ALL_ROWS = {{ d.padded_rows }}u;
const CHUNKS = {{ d.chunks }}u;      // 16-byte pieces of a row
const PARTS = {{ d.parts }}u;        // partial sums of a row left after the shuffles
const TILE = {{ d.tile }}u;          // rows of a workgroup

var<workgroup> sums: array<{{ acc }}, {{ d.tile * d.parts }}>;

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let tile = (wid.x + wid.y * {{ d.grid_x }}u) * TILE;
  let lane = t % LANES;
  let first = t / LANES * ROWS;
{%- for r in range(end=c.rows) %}
  // Rows past the end are computed again from the last one and never stored.
  let row{{ r }} = min(tile + first + {{ r }}u, ALL_ROWS - 1u);
  var acc{{ r }}: {{ acc }} = 0{% if not int %}.0{% endif %};
{%- endfor %}
  for (var k = lane; k < CHUNKS; k += LANES) {
{%- for r in range(end=c.rows) %}
    let w{{ r }} = w[row{{ r }} * CHUNKS + k];
{%- endfor %}
{%- if int %}
{%- for i in range(end=d.quads // 4) %}
    let x{{ i }} = x[k * {{ d.quads // 4 }}u + {{ i }}u];
{%- endfor %}
{%- for r in range(end=c.rows) %}
{%- for j in range(end=4) %}
{%- for f in range(end=d.quads // 4) %}
{%- set q = j * (d.quads // 4) + f %}
    acc{{ r }} += dot4I8Packed(field_{{ f }}(w{{ r }}.{{ words[j] }}), x{{ q // 4 }}.{{ words[q % 4] }});
{%- endfor %}
{%- endfor %}
{%- endfor %}
{%- else %}
{%- for i in range(end=d.quads) %}
    let x{{ i }} = x_at(k * {{ d.quads }}u + {{ i }}u);
{%- endfor %}
{%- for r in range(end=c.rows) %}
{%- if s.format == "f32" %}
    acc{{ r }} += dot(bitcast<vec4<f32>>(w{{ r }}), x0);
{%- elif s.format == "bf16" %}
    acc{{ r }} += dot(bitcast<vec4<f32>>(vec4<u32>(w{{ r }}.x << 16u, w{{ r }}.x & 0xffff0000u, w{{ r }}.y << 16u, w{{ r }}.y & 0xffff0000u)), x0);
    acc{{ r }} += dot(bitcast<vec4<f32>>(vec4<u32>(w{{ r }}.z << 16u, w{{ r }}.z & 0xffff0000u, w{{ r }}.w << 16u, w{{ r }}.w & 0xffff0000u)), x1);
{%- elif s.format == "f16" %}
    acc{{ r }} += dot(vec4<f32>(unpack2x16float(w{{ r }}.x), unpack2x16float(w{{ r }}.y)), x0);
    acc{{ r }} += dot(vec4<f32>(unpack2x16float(w{{ r }}.z), unpack2x16float(w{{ r }}.w)), x1);
{%- else %}
    var part{{ r }} = 0.0;
{%- for j in range(end=4) %}
{%- for f in range(end=d.quads // 4) %}
    part{{ r }} += dot(lanes(field_{{ f }}(w{{ r }}.{{ words[j] }})), x{{ j * (d.quads // 4) + f }});
{%- endfor %}
{%- endfor %}
{%- if s.scale == "group" %}
    acc{{ r }} += part{{ r }} * group_scale(row{{ r }} * {{ d.groups }}u + k * {{ d.quads * 4 }}u / 32u);
{%- else %}
    acc{{ r }} += part{{ r }};
{%- endif %}
{%- endif %}
{%- endfor %}
{%- endif %}
  }
{%- if d.shuffled > 1 %}
  for (var step_ = {{ d.shuffled // 2 }}u; step_ > 0u; step_ >>= 1u) {
{%- for r in range(end=c.rows) %}
    acc{{ r }} += subgroupShuffleXor(acc{{ r }}, step_);
{%- endfor %}
  }
{%- endif %}
  if (lane % {{ d.shuffled }}u == 0u) {
{%- for r in range(end=c.rows) %}
    sums[(first + {{ r }}u) * PARTS + lane / {{ d.shuffled }}u] = acc{{ r }};
{%- endfor %}
  }
  workgroupBarrier();

  // One thread finishes one quad of results.
  for (var q = t; q < TILE / {{ d.rows_per_quad }}u; q += {{ c.wg }}u) {
    let quad = tile / {{ d.rows_per_quad }}u + q;
    if (quad < {{ d.out_quads }}u) {
{%- if s.epilogue == "geglu" %}
      finish(0u, quad, total(q * 8u, 2u * quad), total(q * 8u + 4u, 2u * quad + 1u));
{%- else %}
      finish(0u, quad, total(q * 4u, quad));
{%- endif %}
    }
  }
}

// Sum of four rows' partial sums, scaled.
fn total(row: u32, scale_quad: u32) -> vec4<f32> {
  var v = vec4<{{ acc }}>();
  for (var p = 0u; p < PARTS; p += 1u) {
    v += vec4<{{ acc }}>(sums[row * PARTS + p], sums[(row + 1u) * PARTS + p], sums[(row + 2u) * PARTS + p], sums[(row + 3u) * PARTS + p]);
  }
{%- if int %}
  return vec4<f32>(v >> vec4<u32>({{ d.shift }}u)) * (grids[0] * scales[scale_quad]);
{%- elif s.scale == "row" %}
  return v * (scales[scale_quad] * {{ 1.0 / d.factor }});
{%- elif s.scale == "group" %}
  return v * {{ 1.0 / d.factor }};
{%- else %}
  return v;
{%- endif %}
}
