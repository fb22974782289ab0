{#- y = W x for one token: every weight is read once, 16 bytes a lane at a time.
    A group of `lanes` threads shares `rows` rows and has `unroll` pieces of each on their way before
    it computes; see codegen/src/kernels/gemv.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
{% set int = s.x == "i8" -%}
{% set int_weights = s.format == "i8" or s.format == "i4" or s.format == "i2" -%}
{% set words = ["x", "y", "z", "w"] -%}
{% set fields = d.quads // 4 -%}
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

const WG = {{ c.wg }}u;
const LANES = {{ c.lanes }}u;
const ALL_ROWS = {{ d.padded_rows }}u;
const CHUNKS = {{ d.chunks }}u;      // 16-byte pieces of a row
const PARTS = {{ d.parts }}u;        // partial sums of a row left after the shuffles
const TILE = {{ d.tile }}u;          // rows of a workgroup
const X_QUADS = {{ d.x_quads }}u;    // quads of x

{% set acc = "i32" if int else "f32" -%}
{% if d.direct == 0 -%}
var<workgroup> sums: array<{{ acc }}, {{ d.tile * d.parts }}>;
{%- endif %}
{% if c.digits > 1 -%}
// x as {{ c.digits }} planes of int8 digits, most significant first: x = x_scale * (d0 * 256 + d1 …).
var<workgroup> xs: array<vec4<u32>, {{ c.digits * d.x_quads // 4 }}>;
var<private> x_scale: f32;
{{ <workgroup_reduce name="x_max" wg={c.wg} sg={c.sg} op="max" /> }}
{%- elif c.shared and int -%}
var<workgroup> xs: array<vec4<u32>, {{ d.x_quads // 4 }}>;
{%- elif c.shared -%}
var<workgroup> xs: array<vec4<f32>, {{ d.x_quads }}>;
{%- endif %}

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let tile_0 = (wid.x + wid.y * {{ d.grid_x }}u) * {{ d.tile * c.tiles }}u;
  let lane = t % LANES;
  let first = t / LANES * {{ c.rows }}u;
{%- if d.hoisted == 1 %}
  // A lane's whole share of a tile is on its way before x is looked at.
{%- for r in range(end=c.rows) %}
  let start{{ r }} = min(tile_0 + first + {{ r }}u, ALL_ROWS - 1u) * CHUNKS + lane;
{%- for u in range(end=c.unroll) %}
  {% if c.tiles > 1 %}var{% else %}let{% endif %} w{{ r }}_{{ u }} = w[start{{ r }} + {{ u * c.lanes }}u];
{%- endfor %}{% endfor %}
{%- endif %}
{%- if c.digits > 1 %}
  var top = vec4<f32>();
  for (var i = t; i < X_QUADS; i += WG) { top = max(top, abs(x_at(i))); }
  let largest = x_max(t, max(max(top.x, top.y), max(top.z, top.w)));
  let inverse = select(0.0, {{ d.digit_top }}.0 / largest, largest > 0.0);
  x_scale = largest / {{ d.digit_top }}.0;
  for (var i = t; i < X_QUADS / 4u; i += WG) {
{%- for j in range(end=4) %}
    var q{{ j }} = vec4<i32>(round(x_at(4u * i + {{ j }}u) * inverse));
{%- endfor %}
{#- Balanced digits of -128 to 127, least significant first. #}
{%- for p in range(end=c.digits) | reverse %}
{%- for j in range(end=4) %}
{%- if p > 0 %}
    let d{{ p }}_{{ j }} = ((q{{ j }} + 128) & vec4<i32>(255)) - 128;
    q{{ j }} = (q{{ j }} - d{{ p }}_{{ j }}) >> vec4<u32>(8u);
{%- else %}
    let d{{ p }}_{{ j }} = q{{ j }};
{%- endif %}
{%- endfor %}
    xs[{{ p }}u * (X_QUADS / 4u) + {{ <place_of i="i" fields={fields} /> }}] = vec4<u32>(pack4xI8(d{{ p }}_0), pack4xI8(d{{ p }}_1), pack4xI8(d{{ p }}_2), pack4xI8(d{{ p }}_3));
{%- endfor %}
  }
  workgroupBarrier();
{%- elif c.shared %}
{%- set per_chunk = fields if int else d.quads %}
  for (var i = t; i < X_QUADS{% if int %} / 4u{% endif %}; i += WG) { xs[{{ <place_of i="i" fields={per_chunk} /> }}] = {% if int %}x[i]{% else %}x_at(i){% endif %}; }
  workgroupBarrier();
{%- endif %}
{%- if c.tiles > 1 %}
  for (var n = 0u; n < {{ c.tiles }}u; n += 1u) {
  let tile = tile_0 + n * TILE;
{%- else %}
  let tile = tile_0;
{%- endif %}
{%- for r in range(end=c.rows) %}
  // Rows past the end are computed again from the last one and never stored.
  let row{{ r }} = min(tile + first + {{ r }}u, ALL_ROWS - 1u);
  let at{{ r }} = row{{ r }} * CHUNKS;
{%- endfor %}
{%- if d.hoisted == 1 and c.tiles > 1 %}
  // The next tile is on its way while this one is computed. Behind the last that is the last again:
  // a condition would hold the loads back.
{%- for r in range(end=c.rows) %}
  let start{{ r }}_ = min(tile_0 + min(n + 1u, {{ c.tiles - 1 }}u) * TILE + first + {{ r }}u, ALL_ROWS - 1u) * CHUNKS + lane;
{%- for u in range(end=c.unroll) %}
  let next{{ r }}_{{ u }} = w[start{{ r }}_ + {{ u * c.lanes }}u];
{%- endfor %}{% endfor %}
{%- endif %}
  // What the results meet at the end is on its way before the sums are there: scales, grids, aux.
{%- if d.direct == 1 %}
{%- for q in range(end=c.rows // d.rows_per_quad) %}
  let quad{{ q }} = (tile + first) / {{ d.rows_per_quad }}u + {{ q }}u;
  let beside{{ q }} = beside(0u, min(quad{{ q }}, {{ d.out_quads - 1 }}u));
{%- if s.epilogue == "geglu" %}
  let scale{{ q }} = scale_at(2u * min(quad{{ q }}, {{ d.out_quads - 1 }}u));
  let scale_up{{ q }} = scale_at(2u * min(quad{{ q }}, {{ d.out_quads - 1 }}u) + 1u);
{%- else %}
  let scale{{ q }} = scale_at(min(quad{{ q }}, {{ d.out_quads - 1 }}u));
{%- endif %}
{%- endfor %}
{%- else %}
  let quad0 = tile / {{ d.rows_per_quad }}u + min(t, TILE / {{ d.rows_per_quad }}u - 1u);
  let beside0 = beside(0u, min(quad0, {{ d.out_quads - 1 }}u));
{%- if s.epilogue == "geglu" %}
  let scale0 = scale_at(2u * min(quad0, {{ d.out_quads - 1 }}u));
  let scale_up0 = scale_at(2u * min(quad0, {{ d.out_quads - 1 }}u) + 1u);
{%- else %}
  let scale0 = scale_at(min(quad0, {{ d.out_quads - 1 }}u));
{%- endif %}
{%- endif %}
{%- for r in range(end=c.rows) %}
{%- if int %}
  var acc{{ r }} = 0;
{%- elif c.digits > 1 and s.scale == "row" %}
{%- for p in range(end=c.digits) %}
  var acc{{ r }}_{{ p }} = 0;
{%- endfor %}
{%- else %}
  var acc{{ r }} = 0.0;
{%- endif %}
{%- endfor %}
{#- First whole blocks of `unroll` pieces, then what is left, piece by piece. #}
{%- for section in ["blocks", "rest"] %}
{%- set n = c.unroll if section == "blocks" else 1 %}
{%- if section == "blocks" and d.blocks > 0 or section == "rest" and d.rest == 1 %}
{%- if section == "blocks" and d.blocks == 1 %}
  {
    let k0 = lane;
{%- elif section == "blocks" %}
  for (var k0 = lane; k0 < {{ d.blocks * c.unroll * c.lanes }}u; k0 += {{ c.unroll * c.lanes }}u) {
{%- else %}
  for (var k0 = lane + {{ d.blocks * c.unroll * c.lanes }}u; k0 < CHUNKS; k0 += LANES) {
{%- endif %}
{%- if not (section == "blocks" and d.hoisted == 1) %}
{%- for u in range(end=n) %}{% for r in range(end=c.rows) %}
    let w{{ r }}_{{ u }} = w[at{{ r }} + k0 + {{ u * c.lanes }}u];
{%- endfor %}{% endfor %}
{%- endif %}
{%- for u in range(end=n) %}
    {
      let k = k0 + {{ u * c.lanes }}u;
{%- if c.digits > 1 %}
{%- for p in range(end=c.digits) %}{% for i in range(end=fields) %}
      let x{{ p }}_{{ i }} = xs[{{ p * d.x_quads // 4 + i * d.chunks }}u + k];
{%- endfor %}{% endfor %}
{%- for r in range(end=c.rows) %}
{%- if s.scale == "group" %}
{%- for p in range(end=c.digits) %}
      var acc{{ r }}_{{ p }} = 0;
{%- endfor %}
{%- endif %}
{%- for j in range(end=4) %}{% for f in range(end=fields) %}
{%- set q = j * fields + f %}
      let f{{ r }}_{{ q }} = field_{{ f }}(w{{ r }}_{{ u }}.{{ words[j] }});
{%- for p in range(end=c.digits) %}
      acc{{ r }}_{{ p }} += dot4I8Packed(f{{ r }}_{{ q }}, x{{ p }}_{{ q // 4 }}.{{ words[q % 4] }});
{%- endfor %}
{%- endfor %}{% endfor %}
{%- if s.scale == "group" %}
      acc{{ r }} += ({{ <digits_sum row={r} digits={c.digits} /> }}) * group_scale(row{{ r }} * {{ d.groups }}u + k * {{ d.quads * 4 }}u / 32u);
{%- endif %}
{%- endfor %}
{%- elif int %}
{%- for i in range(end=fields) %}
      let x{{ i }} = {% if c.shared %}xs[{{ i * d.chunks }}u + k]{% else %}x[k * {{ fields }}u + {{ i }}u]{% endif %};
{%- endfor %}
{%- for r in range(end=c.rows) %}
{%- for j in range(end=4) %}{% for f in range(end=fields) %}
{%- set q = j * fields + f %}
      acc{{ r }} += dot4I8Packed(field_{{ f }}(w{{ r }}_{{ u }}.{{ words[j] }}), x{{ q // 4 }}.{{ words[q % 4] }});
{%- endfor %}{% endfor %}
{%- endfor %}
{%- else %}
{%- for i in range(end=d.quads) %}
      let x{{ i }} = {% if c.shared %}xs[{{ i * d.chunks }}u + k]{% else %}x_at(k * {{ d.quads }}u + {{ i }}u){% endif %};
{%- endfor %}
{%- for r in range(end=c.rows) %}
{%- set v = "w" ~ r ~ "_" ~ u %}
{%- if s.format == "f32" %}
      acc{{ r }} += dot(bitcast<vec4<f32>>({{ v }}), x0);
{%- elif s.format == "bf16" %}
      acc{{ r }} += dot(bitcast<vec4<f32>>(vec4<u32>({{ v }}.x << 16u, {{ v }}.x & 0xffff0000u, {{ v }}.y << 16u, {{ v }}.y & 0xffff0000u)), x0);
      acc{{ r }} += dot(bitcast<vec4<f32>>(vec4<u32>({{ v }}.z << 16u, {{ v }}.z & 0xffff0000u, {{ v }}.w << 16u, {{ v }}.w & 0xffff0000u)), x1);
{%- elif s.format == "f16" %}
      acc{{ r }} += dot(vec4<f32>(unpack2x16float({{ v }}.x), unpack2x16float({{ v }}.y)), x0);
      acc{{ r }} += dot(vec4<f32>(unpack2x16float({{ v }}.z), unpack2x16float({{ v }}.w)), x1);
{%- else %}
      var part{{ r }} = 0.0;
{%- for j in range(end=4) %}{% for f in range(end=fields) %}
      part{{ r }} += dot(lanes(field_{{ f }}({{ v }}.{{ words[j] }})), x{{ j * fields + f }});
{%- endfor %}{% endfor %}
{%- if s.scale == "group" %}
      acc{{ r }} += part{{ r }} * group_scale(row{{ r }} * {{ d.groups }}u + k * {{ d.quads * 4 }}u / 32u);
{%- else %}
      acc{{ r }} += part{{ r }};
{%- endif %}
{%- endif %}
{%- endfor %}
{%- endif %}
    }
{%- endfor %}
  }
{%- endif %}
{%- endfor %}
{%- for r in range(end=c.rows) %}
  var sum{{ r }} = {% if c.digits > 1 and s.scale == "row" %}{{ <digits_sum row={r} digits={c.digits} /> }}{% else %}acc{{ r }}{% endif %};
{%- endfor %}
{%- if d.shuffled > 1 %}
  for (var step_ = {{ d.shuffled // 2 }}u; step_ > 0u; step_ >>= 1u) {
{%- for r in range(end=c.rows) %}
    sum{{ r }} += subgroupShuffleXor(sum{{ r }}, step_);
{%- endfor %}
  }
{%- endif %}
{%- if d.direct == 1 %}
  // Every lane has whole sums, and its rows are whole quads: no need to meet in memory.
{%- for q in range(end=c.rows // d.rows_per_quad) %}
{%- set r = q * d.rows_per_quad %}
  if (lane == {{ q % c.lanes }}u && quad{{ q }} < {{ d.out_quads }}u) {
{%- if s.epilogue == "geglu" %}
    finish(0u, quad{{ q }}, scaled(vec4<{{ acc }}>(sum{{ r }}, sum{{ r + 1 }}, sum{{ r + 2 }}, sum{{ r + 3 }}), scale{{ q }}),
      scaled(vec4<{{ acc }}>(sum{{ r + 4 }}, sum{{ r + 5 }}, sum{{ r + 6 }}, sum{{ r + 7 }}), scale_up{{ q }}), beside{{ q }});
{%- else %}
    finish(0u, quad{{ q }}, scaled(vec4<{{ acc }}>(sum{{ r }}, sum{{ r + 1 }}, sum{{ r + 2 }}, sum{{ r + 3 }}), scale{{ q }}), beside{{ q }});
{%- endif %}
  }
{%- endfor %}
{%- else %}
{%- if c.tiles > 1 %}
  workgroupBarrier();
{%- endif %}
  if (lane % {{ d.shuffled }}u == 0u) {
{%- for r in range(end=c.rows) %}
    sums[(first + {{ r }}u) * PARTS + lane / {{ d.shuffled }}u] = sum{{ r }};
{%- endfor %}
  }
  workgroupBarrier();

  // One thread finishes one quad of results.
  if (t < TILE / {{ d.rows_per_quad }}u && quad0 < {{ d.out_quads }}u) {
{%- if s.epilogue == "geglu" %}
    finish(0u, quad0, scaled(total(t * 8u), scale0), scaled(total(t * 8u + 4u), scale_up0), beside0);
{%- else %}
    finish(0u, quad0, scaled(total(t * 4u), scale0), beside0);
{%- endif %}
  }
{%- endif %}
{%- if c.tiles > 1 %}
{%- if d.hoisted == 1 %}
{%- for r in range(end=c.rows) %}{% for u in range(end=c.unroll) %}
  w{{ r }}_{{ u }} = next{{ r }}_{{ u }};
{%- endfor %}{% endfor %}
{%- endif %}
  }
{%- endif %}
}

{% if d.direct == 0 -%}
// Sum of four rows' partial sums.
fn total(row: u32) -> vec4<{{ acc }}> {
  var v = vec4<{{ acc }}>();
  for (var p = 0u; p < PARTS; p += 1u) {
    v += vec4<{{ acc }}>(sums[row * PARTS + p], sums[(row + 1u) * PARTS + p], sums[(row + 2u) * PARTS + p], sums[(row + 3u) * PARTS + p]);
  }
  return v;
}
{%- endif %}

// Four rows' sums in the units of y.
fn scaled(v: vec4<{{ acc }}>, scale: vec4<f32>) -> vec4<f32> {
{%- if int %}
  return vec4<f32>(v >> vec4<u32>({{ d.shift }}u)) * scale;
{%- elif s.scale == "none" %}
  return v;
{%- else %}
  return v * ({% if c.digits > 1 %}x_scale * {% endif %}{% if s.scale == "row" %}scale * {% endif %}{{ 1.0 / d.factor }});
{%- endif %}
}

// The scales of a quad's rows, for integer sums with the grid of x.
fn scale_at(quad: u32) -> vec4<f32> {
{%- if int %}
  return grids[0] * scales[quad];
{%- elif s.scale == "row" %}
  return scales[quad];
{%- else %}
  return vec4<f32>();
{%- endif %}
}

{#- The planes' sums of a row. -#}
{% component digits_sum(row: integer, digits: integer) -%}
{%- for p in range(end=digits) %}{% if p + 1 < digits %}({% endif %}{% endfor -%}
{%- for p in range(end=digits) -%}
{% if p > 0 %}) * 256.0 + {% endif %}f32(acc{{ row }}_{{ p }})
{%- endfor -%}
{%- endcomponent digits_sum %}

{#- Where the i-th piece of x lies in workgroup memory: the first pieces of all chunks, then the
    second ones, so that neighbouring lanes read neighbouring words and no two the same bank. -#}
{% component place_of(i: string, fields: integer) -%}
{% if fields > 1 %}{{ i }} % {{ fields }}u * CHUNKS + {{ i }} / {{ fields }}u{% else %}{{ i }}{% endif %}
{%- endcomponent place_of %}
