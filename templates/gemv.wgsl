{#- y = W x for one token: every weight is read once, a piece of 16 bytes a lane at a time: columns
    of one row of floats, or of four rows of integers. A group of `lanes` threads shares `rows` rows
    and has `unroll` pieces of each on their way before it computes; see codegen/src/kernels/gemv.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
{% set int = s.x == "i8" -%}
{% set int_weights = s.format == "i8" or s.format == "i4" or s.format == "i2" -%}
{% set words = ["x", "y", "z", "w"] -%}
{#- Quads of x that a word of integer weights meets, and the type that holds their codes. -#}
{% set fields = d.quads -%}
{% set codes = "u32" if fields == 1 else ("vec2<u32>" if fields == 2 else "vec4<u32>") -%}
{% set bands = c.rows // d.piece_rows -%}
@group(0) @binding({{ b.w }}) var<storage, read> w: array<vec4<u32>>;
{% if s.scale == "row" -%}
@group(0) @binding({{ b.scales }}) var<storage, read> scales: array<vec4<f32>>;
{%- elif s.scale == "group" -%}
@group(0) @binding({{ b.scales }}) var<storage, read> scales: array<vec2<u32>>;
// Of four rows and the group of columns that piece k lies in.
fn group_words(at: u32, k: u32) -> vec2<u32> { return scales[at / CHUNKS * {{ d.groups }}u + k * {{ d.quads * 4 }}u / 32u]; }
fn group_scales(v: vec2<u32>) -> vec4<f32> { return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y)); }
{%- endif %}
{% if s.norm -%}
{{ <norm_site x={b.x} site={b.site} quads={d.x_quads} /> }}
{%- if s.norm.residual %}
{{ <norm_residual y={b.y} ty={s.norm.y} sum={b.sum} quads={d.x_quads} native={c.f16} banks={d.banks} /> }}
{%- endif %}
{{ <norm_sums wg={c.wg} sg={c.sg} residual={s.norm.residual} norm={s.norm.norm} /> }}
{%- elif int -%}
@group(0) @binding({{ b.x }}) var<storage, read> x: array<{{ codes }}>;
{%- else -%}
{{ <input name="x" binding={b.x} ty={s.x} native={c.f16} /> }}
{%- endif %}
{% if d.has_grids == 1 and not s.norm -%}
{{ <grids binding={b.grids} /> }}
{%- endif %}
{% if s.epilogue == "ple" or s.epilogue == "residual" -%}
@group(0) @binding({{ b.aux }}) var<storage, read> aux: array<vec4<f32>>;
{%- endif %}
{{ <output name="out" binding={b.out} ty={s.out} native={c.f16} /> }}
{% if int_weights %}{{ <fields format={s.format} /> }}{% endif %}
{{ <finish epilogue={s.epilogue} out={s.out} grids={s.grids} split_a={s.split_a} split_b={s.split_b}
    out_stride4={d.out_stride4} first4={d.first4} softcap={s.softcap} tops={d.tops} /> }}
{%- if d.tops > 0 %}
@group(0) @binding({{ b.tops }}) var<storage, read_write> tops: array<f32>;
{{ <workgroup_reduce name="largest_top" wg={c.wg} sg={c.sg} op="max" /> }}
{%- endif %}

const WG = {{ c.wg }}u;
const LANES = {{ c.lanes }}u;
const ALL_ROWS = {{ d.padded_rows }}u;
const CHUNKS = {{ d.chunks }}u;      // 16-byte pieces of a row, or of four rows of integers
const PARTS = {{ d.parts }}u;        // partial sums of a row left after the shuffles
const TILE = {{ d.tile }}u;          // rows of a workgroup
const X_QUADS = {{ d.x_quads }}u;    // quads of x

{% set acc = "i32" if int or d.whole == 1 else "f32" -%}
{% if d.direct == 0 -%}
var<workgroup> sums: array<{{ acc }}, {{ d.tile * d.parts }}>;
{%- endif %}
{% if d.pieced == 1 -%}
// x as {{ c.digits }} int8 digits, most significant first: x = unit * (d0 * 256 + d1 …), where the quads that a piece of
// weights meets have one unit.
struct Piece { {% for p in range(end=c.digits) %}d{{ p }}: {{ codes }}, {% endfor %}unit: f32 }
{%- if d.own == 0 %}
var<workgroup> xs: array<{{ codes }}, {{ c.digits * d.chunks }}>;
var<workgroup> units: array<f32, CHUNKS>;
{%- endif %}
{{ <digit_values digits={c.digits} /> }}
{{ <largest_of /> }}
// What is smaller yet would have no reciprocal.
fn inverse_of(largest: f32) -> f32 { return select(0.0, {{ d.digit_top }}.0 / largest, largest > 1e-30); }
{%- if s.norm %}
{{ <piece_memory fields={fields} sg={c.sg} quads={d.x_quads} /> }}
fn put_digits(i: u32, v: vec4<f32>, largest: f32) {
  let q = digit_values(v * inverse_of(largest));
{%- set at = "i" if fields == 1 else "i / " ~ fields ~ "u" %}
{%- set of = "" if fields == 1 else "[i % " ~ fields ~ "u]" %}
{%- for p in range(end=c.digits) %}
  xs[{{ p }}u * CHUNKS + {{ at }}]{{ of }} = pack4xI8(q.d{{ p }});
{%- endfor %}
  if (i % {{ fields }}u == 0u) { units[{{ at }}] = largest * {{ 1.0 / d.digit_top / d.factor }}; }
}
{%- else %}
fn piece_at(k: u32) -> Piece {
{%- for f in range(end=fields) %}
  let v{{ f }} = x_at(k * {{ fields }}u + {{ f }}u);
{%- endfor %}
  let largest = {% for f in range(end=fields) %}{% if f + 1 < fields %}max({% endif %}largest_of(v{{ f }}){% if f + 1 < fields %}, {% endif %}{% endfor %}{% for f in range(start=1, end=fields) %}){% endfor %};
  let inverse = inverse_of(largest);
{%- for f in range(end=fields) %}
  let q{{ f }} = digit_values(v{{ f }} * inverse);
{%- endfor %}
  return Piece({% for p in range(end=c.digits) %}{% if fields == 1 %}pack4xI8(q0.d{{ p }}){% else %}{{ codes }}({% for f in range(end=fields) %}{% if f > 0 %}, {% endif %}pack4xI8(q{{ f }}.d{{ p }}){% endfor %}){% endif %}, {% endfor %}largest * {{ 1.0 / d.digit_top / d.factor }});
}
{%- endif %}
{%- elif c.digits > 1 -%}
// x as {{ c.digits }} planes of int8 digits, most significant first: x = x_scale * (d0 * 256 + d1 …).
var<workgroup> xs: array<{{ codes }}, {{ c.digits * d.chunks }}>;
var<private> x_scale: f32;
{{ <workgroup_reduce name="x_max" wg={c.wg} sg={c.sg} op="max" /> }}
// Quad `i` as digits, balanced ones of -128 to 127.
fn put_digits(i: u32, v: vec4<f32>, inverse: f32) {
  var q = vec4<i32>(round(v * inverse));
{%- for p in range(end=c.digits) | reverse %}
{%- if p > 0 %}
  let d{{ p }} = ((q + 128) & vec4<i32>(255)) - 128;
  q = (q - d{{ p }}) >> vec4<u32>(8u);
{%- else %}
  let d0 = q;
{%- endif %}
  xs[{{ p }}u * CHUNKS + i{% if fields > 1 %} / {{ fields }}u][i % {{ fields }}u]{% else %}]{% endif %} = pack4xI8(d{{ p }});
{%- endfor %}
}
{%- elif c.shared and int -%}
var<workgroup> xs: array<{{ codes }}, {{ d.chunks }}>;
{%- if s.norm %}
{{ <put_codes fields={fields} /> }}
{%- endif %}
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
{%- for r in range(end=bands) %}
  let start{{ r }} = {{ <piece_of row={"tile_0 + first"} band={r} rows={d.piece_rows} /> }} + lane;
{%- for u in range(end=c.unroll) %}
  {% if c.tiles > 1 %}var{% else %}let{% endif %} w{{ r }}_{{ u }} = w[start{{ r }} + {{ u * c.lanes }}u];
{%- if s.scale == "group" %}
  {% if c.tiles > 1 %}var{% else %}let{% endif %} g{{ r }}_{{ u }} = group_words(start{{ r }} - lane, lane + {{ u * c.lanes }}u);
{%- endif %}
{%- endfor %}{% endfor %}
{%- endif %}
{%- if s.norm %}
{{ <norm_row base="0u" wg={c.wg} per_thread={d.per_thread} quads={d.x_quads} width={s.columns} eps={s.norm.eps}
    residual={s.norm.residual} scaled={s.norm.scaled} norm={s.norm.norm} keep="wid.x + wid.y == 0u" /> }}
{%- endif %}
{%- if d.pieced == 1 and s.norm %}
{{ <piece_largest per_thread={d.per_thread} fields={fields} sg={c.sg} quads={d.x_quads} /> }}
{%- for i in range(end=d.per_thread) %}
  if (in{{ i }}) { put_digits(q{{ i }}, x{{ i }}, largest{{ i }}); }
{%- endfor %}
  workgroupBarrier();
{%- elif d.own == 1 %}
{%- if d.hoisted == 1 %}
{%- for u in range(end=c.unroll) %}
  let own_{{ u }} = piece_at(lane + {{ u * c.lanes }}u);
{%- endfor %}
{%- endif %}
{%- elif d.pieced == 1 %}
  for (var i = t; i < CHUNKS; i += WG) {
    let own = piece_at(i);
{%- for p in range(end=c.digits) %}
    xs[{{ p }}u * CHUNKS + i] = own.d{{ p }};
{%- endfor %}
    units[i] = own.unit;
  }
  workgroupBarrier();
{%- elif c.digits > 1 %}
  var top = vec4<f32>();
{%- if s.norm %}
{%- for i in range(end=d.per_thread) %}
  top = max(top, abs(x{{ i }}));
{%- endfor %}
{%- else %}
  for (var i = t; i < X_QUADS; i += WG) { top = max(top, abs(x_at(i))); }
{%- endif %}
  let largest = x_max(t, max(max(top.x, top.y), max(top.z, top.w)));
  let inverse = select(0.0, {{ d.digit_top }}.0 / largest, largest > 0.0);
  x_scale = largest / {{ d.digit_top }}.0;
{%- if s.norm %}
{%- for i in range(end=d.per_thread) %}
  if (in{{ i }}) { put_digits(q{{ i }}, x{{ i }}, inverse); }
{%- endfor %}
{%- else %}
  for (var i = t; i < X_QUADS; i += WG) { put_digits(i, x_at(i), inverse); }
{%- endif %}
  workgroupBarrier();
{%- elif c.shared %}
{%- if s.norm and int %}
  let grid_ = grid_at(0u);
{%- for i in range(end=d.per_thread) %}
  if (in{{ i }}) { put_codes(q{{ i }}, x{{ i }}, grid_); }
{%- endfor %}
{%- elif s.norm %}
{%- for i in range(end=d.per_thread) %}
  if (in{{ i }}) { xs[{{ <place_of i={"q" ~ i} fields={d.quads} /> }}] = x{{ i }}; }
{%- endfor %}
{%- elif int %}
  for (var i = t; i < CHUNKS; i += WG) { xs[i] = x[i]; }
{%- else %}
  for (var i = t; i < X_QUADS; i += WG) { xs[{{ <place_of i="i" fields={d.quads} /> }}] = x_at(i); }
{%- endif %}
  workgroupBarrier();
{%- endif %}
{%- if d.held == 1 %}
  // A lane's part of x is the same for every tile.
{%- for u in range(end=c.unroll) %}{% for p in range(end=c.digits) %}
  let held{{ p }}_{{ u }} = {% if d.own == 1 %}own_{{ u }}.d{{ p }};{% else %}{% if c.digits > 1 or c.shared %}xs{% else %}x{% endif %}[lane + {{ p * d.chunks + u * c.lanes }}u];{% endif %}
{%- endfor %}{% if d.pieced == 1 %}
  let unit_{{ u }} = {% if d.own == 1 %}own_{{ u }}.unit{% else %}units[lane + {{ u * c.lanes }}u]{% endif %};{% endif %}{% endfor %}
{%- endif %}
{%- if c.tiles > 1 %}
  for (var n = 0u; n < {{ c.tiles }}u; n += 1u) {
  let tile = tile_0 + n * TILE;
{%- else %}
  let tile = tile_0;
{%- endif %}
{%- for r in range(end=bands) %}
  // Rows past the end are computed again from the last ones and never stored.
  let at{{ r }} = {{ <piece_of row={"tile + first"} band={r} rows={d.piece_rows} /> }};
{%- endfor %}
{%- if d.hoisted == 1 and c.tiles > 1 %}
  // The next tile is on its way while this one is computed. Behind the last that is the last again:
  // a condition would hold the loads back.
  let after = tile_0 + min(n + 1u, {{ c.tiles - 1 }}u) * TILE + first;
{%- for r in range(end=bands) %}
  let start{{ r }}_ = {{ <piece_of row={"after"} band={r} rows={d.piece_rows} /> }} + lane;
{%- for u in range(end=c.unroll) %}
  let next{{ r }}_{{ u }} = w[start{{ r }}_ + {{ u * c.lanes }}u];
{%- if s.scale == "group" %}
  let next_g{{ r }}_{{ u }} = group_words(start{{ r }}_ - lane, lane + {{ u * c.lanes }}u);
{%- endif %}
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
{%- if (int or c.digits > 1) and s.scale == "row" %}
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
{%- for u in range(end=n) %}{% for r in range(end=bands) %}
    let w{{ r }}_{{ u }} = w[at{{ r }} + k0 + {{ u * c.lanes }}u];
{%- endfor %}{% endfor %}
{%- endif %}
{%- for u in range(end=n) %}
    {
      let k = k0 + {{ u * c.lanes }}u;
{%- if int or c.digits > 1 %}
{%- set early = d.own == 1 and d.hoisted == 1 and section == "blocks" %}
{%- if d.own == 1 and not early %}
      let own = piece_at(k);
{%- endif %}
{%- for p in range(end=c.digits) %}
      let x{{ p }} = {% if d.held == 1 %}held{{ p }}_{{ u }}{% elif early %}own_{{ u }}.d{{ p }}{% elif d.own == 1 %}own.d{{ p }}{% elif c.digits > 1 or c.shared %}xs[{{ p * d.chunks }}u + k]{% else %}x[k]{% endif %};
{%- endfor %}
{%- if d.pieced == 1 %}
      let unit = {% if d.held == 1 %}unit_{{ u }}{% elif early %}own_{{ u }}.unit{% elif d.own == 1 %}own.unit{% else %}units[k]{% endif %};
{%- endif %}
{%- for r in range(end=bands) %}
{%- for j in range(end=4) %}
{%- set row = 4 * r + j %}
{%- if s.scale == "group" %}
{%- for p in range(end=c.digits) %}
      var acc{{ row }}_{{ p }} = 0;
{%- endfor %}
{%- endif %}
{%- for f in range(end=fields) %}
      let f{{ row }}_{{ f }} = field_{{ f }}(w{{ r }}_{{ u }}.{{ words[j] }});
{%- for p in range(end=c.digits) %}
      acc{{ row }}_{{ p }} += dot4I8Packed(f{{ row }}_{{ f }}, x{{ p }}{% if fields > 1 %}.{{ words[f] }}{% endif %});
{%- endfor %}
{%- endfor %}
{%- endfor %}
{%- if s.scale == "group" %}
      let scales{{ r }} = {% if d.pieced == 1 %}unit * {% endif %}group_scales({% if d.hoisted == 1 and section == "blocks" %}g{{ r }}_{{ u }}{% else %}group_words(at{{ r }}, k){% endif %});
{%- for j in range(end=4) %}
      acc{{ 4 * r + j }} += ({{ <digits_sum row={4 * r + j} digits={c.digits} /> }}) * scales{{ r }}.{{ words[j] }};
{%- endfor %}
{%- endif %}
{%- endfor %}
{%- else %}
{%- for i in range(end=d.quads) %}
      let x{{ i }} = {% if c.shared %}xs[{{ i * d.chunks }}u + k]{% else %}x_at(k * {{ d.quads }}u + {{ i }}u){% endif %};
{%- endfor %}
{%- for r in range(end=bands) %}
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
{%- if s.scale == "group" %}
      let scales{{ r }} = group_scales({% if d.hoisted == 1 and section == "blocks" %}g{{ r }}_{{ u }}{% else %}group_words(at{{ r }}, k){% endif %});
{%- endif %}
{%- for j in range(end=4) %}
{%- set row = 4 * r + j %}
      var part{{ row }} = dot(lanes(field_0({{ v }}.{{ words[j] }})), x0);
{%- for f in range(start=1, end=fields) %}
      part{{ row }} += dot(lanes(field_{{ f }}({{ v }}.{{ words[j] }})), x{{ f }});
{%- endfor %}
      acc{{ row }} += part{{ row }}{% if s.scale == "group" %} * scales{{ r }}.{{ words[j] }}{% endif %};
{%- endfor %}
{%- endif %}
{%- endfor %}
{%- endif %}
    }
{%- endfor %}
  }
{%- endif %}
{%- endfor %}
{%- for r in range(end=c.rows) %}
{%- if int %}
  var sum{{ r }} = acc{{ r }}_0;
{%- elif d.whole == 1 %}
  // Fields carry the factor 2^{{ d.shift }}; without it both digits together fit an integer.
  var sum{{ r }} = ((acc{{ r }}_0 >> {{ d.shift }}u) << 8u) + (acc{{ r }}_1 >> {{ d.shift }}u);
{%- elif c.digits > 1 and s.scale == "row" %}
  var sum{{ r }} = {{ <digits_sum row={r} digits={c.digits} /> }};
{%- else %}
  var sum{{ r }} = acc{{ r }};
{%- endif %}
{%- endfor %}
{%- if c.add %}
{%- for r in range(end=c.rows) %}
  sum{{ r }} = subgroupAdd(sum{{ r }});
{%- endfor %}
{%- elif d.shuffled > 1 %}
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
{%- for r in range(end=bands) %}{% for u in range(end=c.unroll) %}
  w{{ r }}_{{ u }} = next{{ r }}_{{ u }};
{%- if s.scale == "group" %}
  g{{ r }}_{{ u }} = next_g{{ r }}_{{ u }};
{%- endif %}
{%- endfor %}{% endfor %}
{%- endif %}
  }
{%- endif %}
{%- if d.tops > 0 %}
  let largest_ = largest_top(t, top_);
  let workgroup_ = wid.x + wid.y * {{ d.grid_x }}u;
  if (t == 0u && workgroup_ < {{ d.top_groups }}u) { tops[workgroup_] = largest_; }
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
{%- elif s.scale == "none" or d.pieced == 1 %}
  return v;
{%- else %}
  return {% if d.whole == 1 %}vec4<f32>(v){% else %}v{% endif %} * ({% if c.digits > 1 %}x_scale * {% endif %}{% if s.scale == "row" %}scale * {% endif %}{% if d.whole == 1 %}1.0{% else %}{{ 1.0 / d.factor }}{% endif %});
{%- endif %}
}

// The scales of a quad's rows, for integer sums with the grid of x.
fn scale_at(quad: u32) -> vec4<f32> {
{%- if int %}
  return grid_at(0u) * scales[quad];
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

{#- The first piece of a band of rows. -#}
{% component piece_of(row: string, band: integer, rows: integer) -%}
min({{ row }}{% if band > 0 %} + {{ band * rows }}u{% endif %}, ALL_ROWS - {{ rows }}u){% if rows > 1 %} / {{ rows }}u{% endif %} * CHUNKS
{%- endcomponent piece_of %}

{#- Where the i-th piece of x lies in workgroup memory: the first pieces of all chunks, then the
    second ones, so that neighbouring lanes read neighbouring words and no two the same bank. -#}
{% component place_of(i: string, fields: integer) -%}
{% if fields > 1 %}{{ i }} % {{ fields }}u * CHUNKS + {{ i }} / {{ fields }}u{% else %}{{ i }}{% endif %}
{%- endcomponent place_of %}

{#- `digit_values(v)`: whole numbers as balanced digits of -128 to 127. -#}
{% component digit_values(digits: integer) -%}
struct DigitValues { {% for p in range(end=digits) %}d{{ p }}: vec4<i32>, {% endfor %} }
fn digit_values(v: vec4<f32>) -> DigitValues {
  let q{{ digits - 1 }} = vec4<i32>(round(v));
{%- for p in range(end=digits) | reverse %}
{%- if p > 0 %}
  let d{{ p }} = ((q{{ p }} + 128) & vec4<i32>(255)) - 128;
  let q{{ p - 1 }} = (q{{ p }} - d{{ p }}) >> vec4<u32>(8u);
{%- endif %}
{%- endfor %}
  return DigitValues(q0{% for p in range(start=1, end=digits) %}, d{{ p }}{% endfor %});
}
{%- endcomponent digit_values %}
