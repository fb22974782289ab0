{#- Two products for one token in one dispatch: a workgroup computes some results of the first as
    codes (or digits of floats), and multiplies the columns of the second that meet them. Norms come first, as in gemv;
    see codegen/src/kernels/gemv_pair.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={false} /> }}
{% set f = s.first -%}
{% set n = f.norm -%}
{% set words = ["x", "y", "z", "w"] -%}
{#- Quads of x that a word of weights meets, and the type that holds their codes. -#}
{% set fields = d.fields -%}
{% set codes = "u32" if fields == 1 else ("vec2<u32>" if fields == 2 else "vec4<u32>") -%}
{% set bands = c.rows // 4 -%}
{% set floats = d.slab_floats == 1 -%}
{% set acc = "f32" if floats else "i32" -%}
@group(0) @binding({{ b.w }}) var<storage, read> w: array<vec4<u32>>;
{{ <norm_site x={b.x} site={b.site} quads={d.x_quads} /> }}
{%- if n.residual %}
{{ <norm_residual y={b.y} ty={n.y} sum={b.sum} quads={d.x_quads} native={false} banks={d.banks} /> }}
{%- endif %}
{{ <norm_sums wg={c.wg} sg={c.sg} residual={n.residual} norm={n.norm} /> }}
{% if f.epilogue == "ple" -%}
@group(0) @binding({{ b.aux }}) var<storage, read> aux: array<vec4<f32>>;
{%- endif %}
{{ <slab_memory w2={b.w2} out={b.out} bits={d.slab_bits} fields={d.slab_fields} pieces={d.slab_pieces}
    quads={d.slab_quads} gathered={d.slab_gathered} floats={d.slab_floats} /> }}
{{ <fields format={f.format} /> }}

const LANES = {{ c.lanes }}u;
const GROUPS = {{ c.wg // c.lanes }}u;    // groups of threads that share rows of the first matrix
const CHUNKS = {{ d.chunks }}u;           // 16-byte pieces of four of its rows
const ALL_ROWS = {{ d.padded_rows }}u;
const SLAB_ROWS = {{ d.slab_rows }}u;     // those of a workgroup
const SLAB_RESULTS = {{ d.slab_results }}u;  // quads of results of a workgroup
const PARTS = {{ d.parts }}u;             // partial sums of a row left after the shuffles

// Results stay in the workgroup, as {% if floats %}digits{% else %}codes{% endif %}.
fn out_put(i: u32, value: vec4<f32>, grid: f32) { put_hs(i % SLAB_RESULTS, value, grid); }
{{ <finish epilogue={f.epilogue} out={f.out} grids={f.grids} split_a={f.split_a} split_b={f.split_b}
    out_stride4={0} first4={0} softcap={f.softcap} /> }}

{% if d.direct == 0 -%}
var<workgroup> sums: array<{{ acc }}, {{ d.slab_rows * d.parts }}>;
{% endif -%}
{% if floats -%}
// Two digits of x, in a plane each, and what those of a piece count for.
var<workgroup> xs: array<{{ codes }}, {{ 2 * d.chunks }}>;
var<workgroup> units: array<f32, {{ d.chunks }}>;
{{ <piece_memory fields={fields} sg={c.sg} quads={d.x_quads} /> }}
{% set at = "i" if fields == 1 else "i / " ~ fields ~ "u" -%}
{% set of = "" if fields == 1 else "[i % " ~ fields ~ "u]" -%}
// `largest`: of the quads of a piece.
fn put_digits(i: u32, v: vec4<f32>, largest: f32) {
  let d = digits_of(v, largest);
  xs[{{ at }}]{{ of }} = d.words.x;
  xs[CHUNKS + {{ at }}]{{ of }} = d.words.y;
  if (i % {{ fields }}u == 0u) { units[{{ at }}] = d.unit{% if d.shift > 0 %} / {{ d.factor }}.0{% endif %}; }
}
{%- else -%}
var<workgroup> xs: array<{{ codes }}, {{ d.chunks }}>;
{{ <put_codes fields={fields} /> }}
{%- endif %}

{% if d.direct == 0 -%}
// Sums of four rows of the workgroup.
fn total(row: u32) -> vec4<{{ acc }}> {
  var v = vec4<{{ acc }}>();
  for (var p = 0u; p < PARTS; p += 1u) {
    v += vec4<{{ acc }}>(sums[row * PARTS + p], sums[(row + 1u) * PARTS + p], sums[(row + 2u) * PARTS + p], sums[(row + 3u) * PARTS + p]);
  }
  return v;
}
{% endif -%}
{% if not floats -%}
fn scaled(v: vec4<i32>, scale: vec4<f32>) -> vec4<f32> { return vec4<f32>(v >> vec4<u32>({{ d.shift }}u)) * scale; }
fn scale_at(quad: u32) -> vec4<f32> { return grid_at(0u) * site[{{ 3 * d.x_quads + 32 }}u + quad]; }
{%- endif %}

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let row_0 = wid.x * SLAB_ROWS;
  let lane = t % LANES;
  let group = t / LANES;
  // Weights are on their way before x is looked at.
{%- for i in range(end=d.early) %}
{{ <pair_loads tile={i} rows={c.rows} bands={bands} unroll={d.unroll} lanes={c.lanes}
    floats={floats} fields={fields} groups={d.groups} scales={d.scales} /> }}
{%- endfor %}
{%- if c.second == "start" %}
{{ <slab_loads wg={c.wg} split={c.split} quads={d.slab_quads} per={d.slab_per} mine={d.slab_mine} chunks={d.slab_chunks}
    floats={d.slab_floats} fields={d.slab_fields} groups={d.slab_groups} scales={d.slab_scales}
    quad0="0u" piece0={"wid.x * " ~ d.slab_pieces ~ "u"} turn={"wid.x * 8u % " ~ d.slab_quads ~ "u"} /> }}
{%- endif %}
  // What the results meet at the end as well.
{%- if d.direct == 1 %}
{%- for i in range(end=d.tiles) %}
{%- for k in range(end=d.quads_per) %}
{{ <pair_beside name={i ~ "_" ~ k} at={"(" ~ i ~ "u * GROUPS + group) * " ~ d.quads_per ~ "u + " ~ k ~ "u"}
    results={d.results} geglu={f.epilogue == "geglu"} floats={floats} /> }}
{%- endfor %}
{%- endfor %}
{%- else %}
{{ <pair_beside name="0" at="t" results={d.results} geglu={f.epilogue == "geglu"} floats={floats} /> }}
{%- endif %}
{{ <norm_row base="0u" wg={c.wg} per_thread={d.per_thread} quads={d.x_quads} width={f.columns} eps={n.eps}
    residual={n.residual} scaled={n.scaled} norm={n.norm} keep="wid.x == 0u" /> }}
{%- if floats %}
{{ <piece_largest per_thread={d.per_thread} fields={fields} sg={c.sg} quads={d.x_quads} /> }}
{%- for i in range(end=d.per_thread) %}
  if (in{{ i }}) { put_digits(q{{ i }}, x{{ i }}, largest{{ i }}); }
{%- endfor %}
{%- else %}
  let grid_ = grid_at(0u);
{%- for i in range(end=d.per_thread) %}
  if (in{{ i }}) { put_codes(q{{ i }}, x{{ i }}, grid_); }
{%- endfor %}
{%- endif %}
{%- if c.second == "norms" %}
{{ <slab_loads wg={c.wg} split={c.split} quads={d.slab_quads} per={d.slab_per} mine={d.slab_mine} chunks={d.slab_chunks}
    floats={d.slab_floats} fields={d.slab_fields} groups={d.slab_groups} scales={d.slab_scales}
    quad0="0u" piece0={"wid.x * " ~ d.slab_pieces ~ "u"} turn={"wid.x * 8u % " ~ d.slab_quads ~ "u"} /> }}
{%- endif %}
  workgroupBarrier();
{%- for i in range(end=d.tiles) %}
  {
{%- if i >= d.early %}
{{ <pair_loads tile={i} rows={c.rows} bands={bands} unroll={d.unroll} lanes={c.lanes}
    floats={floats} fields={fields} groups={d.groups} scales={d.scales} /> }}
{%- endif %}
{%- for r in range(end=c.rows) %}
  var acc{{ r }} = {% if floats %}0.0{% else %}0{% endif %};
{%- endfor %}
{%- for u in range(end=d.unroll) %}
  {
    let x = xs[lane + {{ u * c.lanes }}u];
{%- if floats %}
    let y = xs[CHUNKS + lane + {{ u * c.lanes }}u];
    let unit = units[lane + {{ u * c.lanes }}u];
{%- for r in range(end=bands) %}
    {
      let scales = unit * vec4<f32>(unpack2x16float(z{{ i }}_{{ r }}_{{ u }}.x), unpack2x16float(z{{ i }}_{{ r }}_{{ u }}.y));
{%- for j in range(end=4) %}
      var high{{ j }} = 0;
      var low{{ j }} = 0;
{%- for k in range(end=fields) %}
{%- set word = "" if fields == 1 else "." ~ words[k] %}
      let f{{ j }}_{{ k }} = field_{{ k }}(w{{ i }}_{{ r }}_{{ u }}.{{ words[j] }});
      high{{ j }} += dot4I8Packed(f{{ j }}_{{ k }}, x{{ word }});
      low{{ j }} += dot4I8Packed(f{{ j }}_{{ k }}, y{{ word }});
{%- endfor %}
      acc{{ 4 * r + j }} += f32((high{{ j }} << 8u) + low{{ j }}) * scales.{{ words[j] }};
{%- endfor %}
    }
{%- endfor %}
{%- else %}
{%- for r in range(end=bands) %}
{%- for j in range(end=4) %}
{%- for k in range(end=fields) %}
    acc{{ 4 * r + j }} += dot4I8Packed(field_{{ k }}(w{{ i }}_{{ r }}_{{ u }}.{{ words[j] }}), x{% if fields > 1 %}.{{ words[k] }}{% endif %});
{%- endfor %}
{%- endfor %}
{%- endfor %}
{%- endif %}
  }
{%- endfor %}
{%- if c.add %}
{%- for r in range(end=c.rows) %}
  acc{{ r }} = subgroupAdd(acc{{ r }});
{%- endfor %}
{%- elif d.shuffled > 1 %}
  for (var step_ = {{ d.shuffled // 2 }}u; step_ > 0u; step_ >>= 1u) {
{%- for r in range(end=c.rows) %}
    acc{{ r }} += subgroupShuffleXor(acc{{ r }}, step_);
{%- endfor %}
  }
{%- endif %}
  let at = ({{ i }}u * GROUPS + group) * {{ c.rows }}u;
  if (lane % {{ d.shuffled }}u == 0u{% if (i + 1) * (c.wg // c.lanes) * c.rows > d.slab_rows %} && at < SLAB_ROWS{% endif %}) {
{%- if d.direct == 1 %}
    // Whole sums: results right away. Behind the last there are zeros.
{%- for k in range(end=d.quads_per) %}
{%- set name = i ~ "_" ~ k %}
    if (quad{{ name }} < {{ d.results }}u) {
{%- if f.epilogue == "geglu" and floats %}
      finish(0u, quad{{ name }}, {{ <four at={8 * k} acc={acc} /> }}, {{ <four at={8 * k + 4} acc={acc} /> }}, beside{{ name }});
{%- elif f.epilogue == "geglu" %}
      finish(0u, quad{{ name }}, scaled({{ <four at={8 * k} acc={acc} /> }}, scale{{ name }}), scaled({{ <four at={8 * k + 4} acc={acc} /> }}, scale_up{{ name }}), beside{{ name }});
{%- elif floats %}
      finish(0u, quad{{ name }}, {{ <four at={4 * k} acc={acc} /> }}, beside{{ name }});
{%- else %}
      finish(0u, quad{{ name }}, scaled({{ <four at={4 * k} acc={acc} /> }}, scale{{ name }}), beside{{ name }});
{%- endif %}
    } else {
      {{ <no_results at={"quad" ~ name ~ " % SLAB_RESULTS"} floats={floats} /> }}
    }
{%- endfor %}
{%- else %}
{%- for r in range(end=c.rows) %}
    sums[(at + {{ r }}u) * PARTS + lane / {{ d.shuffled }}u] = acc{{ r }};
{%- endfor %}
{%- endif %}
  }
  }
{%- endfor %}
{%- if d.direct == 0 %}
  workgroupBarrier();

  // One thread finishes one quad of results. Behind the last there are zeros.
  if (t < SLAB_RESULTS) {
    if (quad0 < {{ d.results }}u) {
{%- if f.epilogue == "geglu" and floats %}
      finish(0u, quad0, total(t * 8u), total(t * 8u + 4u), beside0);
{%- elif f.epilogue == "geglu" %}
      finish(0u, quad0, scaled(total(t * 8u), scale0), scaled(total(t * 8u + 4u), scale_up0), beside0);
{%- elif floats %}
      finish(0u, quad0, total(t * 4u), beside0);
{%- else %}
      finish(0u, quad0, scaled(total(t * 4u), scale0), beside0);
{%- endif %}
    } else {
      {{ <no_results at="t" floats={floats} /> }}
    }
  }
{%- endif %}
{%- if c.second == "results" %}
{{ <slab_loads wg={c.wg} split={c.split} quads={d.slab_quads} per={d.slab_per} mine={d.slab_mine} chunks={d.slab_chunks}
    floats={d.slab_floats} fields={d.slab_fields} groups={d.slab_groups} scales={d.slab_scales}
    quad0="0u" piece0={"wid.x * " ~ d.slab_pieces ~ "u"} turn={"wid.x * 8u % " ~ d.slab_quads ~ "u"} /> }}
{%- endif %}
  workgroupBarrier();
{{ <slab_sums wg={c.wg} split={c.split} shuffled={d.slab_shuffled} quads={d.slab_quads} per={d.slab_per} mine={d.slab_mine}
    bits={d.slab_bits} fields={d.slab_fields} whole={d.slab_whole} gathered={d.slab_gathered} floats={d.slab_floats}
    quad0="0u" turn={"wid.x * 8u % " ~ d.slab_quads ~ "u"}
    bank={"wid.x / " ~ d.bank_slabs ~ "u * " ~ d.out_stride ~ "u"} /> }}
}

{#- A lane's pieces of a tile of rows of the first matrix. Rows past the end are computed again from
    the last ones and never stored. -#}
{% component pair_loads(tile: integer, rows: integer, bands: integer, unroll: integer, lanes: integer,
                        floats: bool, fields: integer, groups: integer, scales: integer) -%}
{%- for r in range(end=bands) %}
  let at{{ tile }}_{{ r }} = min(row_0 + min(({{ tile }}u * GROUPS + group) * {{ rows }}u, SLAB_ROWS - {{ rows }}u) + {{ 4 * r }}u, ALL_ROWS - 4u) / 4u * CHUNKS + lane;
{%- for u in range(end=unroll) %}
  let w{{ tile }}_{{ r }}_{{ u }} = w[at{{ tile }}_{{ r }} + {{ u * lanes }}u];
{%- endfor %}
{%- if floats %}
{%- for u in range(end=unroll) %}
  let group{{ tile }}_{{ r }}_{{ u }} = (at{{ tile }}_{{ r }} - lane) / CHUNKS * {{ groups }}u + (lane + {{ u * lanes }}u) * {{ fields }}u / 8u;
  let z{{ tile }}_{{ r }}_{{ u }} = {{ <two_words of="w" first={scales} at={"group" ~ tile ~ "_" ~ r ~ "_" ~ u} /> }};
{%- endfor %}
{%- endif %}
{%- endfor %}
{%- endcomponent pair_loads %}

{#- What the quad of results `at` of the workgroup meets besides its sums. -#}
{% component pair_beside(name: string, at: string, results: integer, geglu: bool, floats: bool) -%}
  let quad{{ name }} = wid.x * SLAB_RESULTS + {{ at }};
  let known{{ name }} = min(quad{{ name }}, {{ results - 1 }}u);
  let beside{{ name }} = beside(0u, known{{ name }});
{%- if geglu and not floats %}
  let scale{{ name }} = scale_at(2u * known{{ name }});
  let scale_up{{ name }} = scale_at(2u * known{{ name }} + 1u);
{%- elif not floats %}
  let scale{{ name }} = scale_at(known{{ name }});
{%- endif %}
{%- endcomponent pair_beside %}

{#- Sums of four rows that one thread has. -#}
{% component four(at: integer, acc: string) -%}
vec4<{{ acc }}>(acc{{ at }}, acc{{ at + 1 }}, acc{{ at + 2 }}, acc{{ at + 3 }})
{%- endcomponent four %}

{#- Behind the last result. -#}
{% component no_results(at: string, floats: bool) -%}
{% if floats %}put_hs({{ at }}, vec4<f32>(), 0.0);{% else %}hs[{{ at }}] = 0u;{% endif %}
{%- endcomponent no_results %}
