{#- Two products for one token in one dispatch: a workgroup computes some results of the first as
    codes, and multiplies the columns of the second that meet them. Norms come first, as in gemv;
    see codegen/src/kernels/gemv_pair.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={false} /> }}
{% set f = s.first -%}
{% set n = f.norm -%}
{% set words = ["x", "y", "z", "w"] -%}
{#- Quads of x that a word of weights meets, and the type that holds their codes. -#}
{% set fields = d.fields -%}
{% set codes = "u32" if fields == 1 else ("vec2<u32>" if fields == 2 else "vec4<u32>") -%}
{% set bands = c.rows // 4 -%}
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
    quads={d.slab_quads} gathered={d.slab_gathered} /> }}
{{ <fields format={f.format} /> }}

const LANES = {{ c.lanes }}u;
const GROUPS = {{ c.wg // c.lanes }}u;    // groups of threads that share rows of the first matrix
const CHUNKS = {{ d.chunks }}u;           // 16-byte pieces of four of its rows
const ALL_ROWS = {{ d.padded_rows }}u;
const SLAB_ROWS = {{ d.slab_rows }}u;     // those of a workgroup
const SLAB_RESULTS = {{ d.slab_results }}u;  // quads of results of a workgroup
const PARTS = {{ d.parts }}u;             // partial sums of a row left after the shuffles

// Results stay in the workgroup, as codes.
fn out_put(i: u32, value: vec4<f32>, grid: f32) { put_hs(i % SLAB_RESULTS, value, grid); }
{{ <finish epilogue={f.epilogue} out="i8" grids={f.grids} split_a={f.split_a} split_b={f.split_b}
    out_stride4={0} first4={0} softcap={f.softcap} /> }}

{% if d.direct == 0 -%}
var<workgroup> sums: array<i32, {{ d.slab_rows * d.parts }}>;
{% endif -%}
var<workgroup> xs: array<{{ codes }}, {{ d.chunks }}>;
{{ <put_codes fields={fields} /> }}

{% if d.direct == 0 -%}
// Sums of four rows of the workgroup.
fn total(row: u32) -> vec4<i32> {
  var v = vec4<i32>();
  for (var p = 0u; p < PARTS; p += 1u) {
    v += vec4<i32>(sums[row * PARTS + p], sums[(row + 1u) * PARTS + p], sums[(row + 2u) * PARTS + p], sums[(row + 3u) * PARTS + p]);
  }
  return v;
}
{% endif -%}
fn scaled(v: vec4<i32>, scale: vec4<f32>) -> vec4<f32> { return vec4<f32>(v >> vec4<u32>({{ d.shift }}u)) * scale; }
fn scale_at(quad: u32) -> vec4<f32> { return grid_at(0u) * site[{{ 3 * d.x_quads + 32 }}u + quad]; }

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let row_0 = wid.x * SLAB_ROWS;
  let lane = t % LANES;
  let group = t / LANES;
  // Weights are on their way before x is looked at.
{%- for i in range(end=d.early) %}
{{ <pair_loads tile={i} rows={c.rows} bands={bands} unroll={d.unroll} lanes={c.lanes} /> }}
{%- endfor %}
{%- if c.second == "start" %}
{{ <slab_loads wg={c.wg} split={c.split} quads={d.slab_quads} per={d.slab_per} mine={d.slab_mine} chunks={d.slab_chunks}
    quad0="0u" piece0={"wid.x * " ~ d.slab_pieces ~ "u"} turn={"wid.x * 8u % " ~ d.slab_quads ~ "u"} /> }}
{%- endif %}
  // What the results meet at the end as well.
{%- if d.direct == 1 %}
{%- for i in range(end=d.tiles) %}
{%- for k in range(end=d.quads_per) %}
{{ <pair_beside name={i ~ "_" ~ k} at={"(" ~ i ~ "u * GROUPS + group) * " ~ d.quads_per ~ "u + " ~ k ~ "u"}
    results={d.results} geglu={f.epilogue == "geglu"} /> }}
{%- endfor %}
{%- endfor %}
{%- else %}
{{ <pair_beside name="0" at="t" results={d.results} geglu={f.epilogue == "geglu"} /> }}
{%- endif %}
{{ <norm_row base="0u" wg={c.wg} per_thread={d.per_thread} quads={d.x_quads} width={f.columns} eps={n.eps}
    residual={n.residual} scaled={n.scaled} norm={n.norm} keep="wid.x == 0u" /> }}
  let grid_ = grid_at(0u);
{%- for i in range(end=d.per_thread) %}
  if (in{{ i }}) { put_codes(q{{ i }}, x{{ i }}, grid_); }
{%- endfor %}
{%- if c.second == "norms" %}
{{ <slab_loads wg={c.wg} split={c.split} quads={d.slab_quads} per={d.slab_per} mine={d.slab_mine} chunks={d.slab_chunks}
    quad0="0u" piece0={"wid.x * " ~ d.slab_pieces ~ "u"} turn={"wid.x * 8u % " ~ d.slab_quads ~ "u"} /> }}
{%- endif %}
  workgroupBarrier();
{%- for i in range(end=d.tiles) %}
  {
{%- if i >= d.early %}
{{ <pair_loads tile={i} rows={c.rows} bands={bands} unroll={d.unroll} lanes={c.lanes} /> }}
{%- endif %}
{%- for r in range(end=c.rows) %}
  var acc{{ r }} = 0;
{%- endfor %}
{%- for u in range(end=d.unroll) %}
  {
    let x = xs[lane + {{ u * c.lanes }}u];
{%- for r in range(end=bands) %}
{%- for j in range(end=4) %}
{%- for k in range(end=fields) %}
    acc{{ 4 * r + j }} += dot4I8Packed(field_{{ k }}(w{{ i }}_{{ r }}_{{ u }}.{{ words[j] }}), x{% if fields > 1 %}.{{ words[k] }}{% endif %});
{%- endfor %}
{%- endfor %}
{%- endfor %}
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
{%- if f.epilogue == "geglu" %}
      finish(0u, quad{{ name }}, scaled({{ <four at={8 * k} /> }}, scale{{ name }}), scaled({{ <four at={8 * k + 4} /> }}, scale_up{{ name }}), beside{{ name }});
{%- else %}
      finish(0u, quad{{ name }}, scaled({{ <four at={4 * k} /> }}, scale{{ name }}), beside{{ name }});
{%- endif %}
    } else {
      hs[quad{{ name }} % SLAB_RESULTS] = 0u;
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
{%- if f.epilogue == "geglu" %}
      finish(0u, quad0, scaled(total(t * 8u), scale0), scaled(total(t * 8u + 4u), scale_up0), beside0);
{%- else %}
      finish(0u, quad0, scaled(total(t * 4u), scale0), beside0);
{%- endif %}
    } else {
      hs[t] = 0u;
    }
  }
{%- endif %}
{%- if c.second == "results" %}
{{ <slab_loads wg={c.wg} split={c.split} quads={d.slab_quads} per={d.slab_per} mine={d.slab_mine} chunks={d.slab_chunks}
    quad0="0u" piece0={"wid.x * " ~ d.slab_pieces ~ "u"} turn={"wid.x * 8u % " ~ d.slab_quads ~ "u"} /> }}
{%- endif %}
  workgroupBarrier();
{{ <slab_sums wg={c.wg} split={c.split} shuffled={d.slab_shuffled} quads={d.slab_quads} per={d.slab_per} mine={d.slab_mine}
    bits={d.slab_bits} fields={d.slab_fields} whole={d.slab_whole} gathered={d.slab_gathered}
    quad0="0u" turn={"wid.x * 8u % " ~ d.slab_quads ~ "u"}
    bank={"wid.x / " ~ d.bank_slabs ~ "u * " ~ d.out_stride ~ "u"} /> }}
}

{#- A lane's pieces of a tile of rows of the first matrix. Rows past the end are computed again from
    the last ones and never stored. -#}
{% component pair_loads(tile: integer, rows: integer, bands: integer, unroll: integer, lanes: integer) -%}
{%- for r in range(end=bands) %}
  let at{{ tile }}_{{ r }} = min(row_0 + min(({{ tile }}u * GROUPS + group) * {{ rows }}u, SLAB_ROWS - {{ rows }}u) + {{ 4 * r }}u, ALL_ROWS - 4u) / 4u * CHUNKS + lane;
{%- for u in range(end=unroll) %}
  let w{{ tile }}_{{ r }}_{{ u }} = w[at{{ tile }}_{{ r }} + {{ u * lanes }}u];
{%- endfor %}
{%- endfor %}
{%- endcomponent pair_loads %}

{#- What the quad of results `at` of the workgroup meets besides its sums. -#}
{% component pair_beside(name: string, at: string, results: integer, geglu: bool) -%}
  let quad{{ name }} = wid.x * SLAB_RESULTS + {{ at }};
  let known{{ name }} = min(quad{{ name }}, {{ results - 1 }}u);
  let beside{{ name }} = beside(0u, known{{ name }});
{%- if geglu %}
  let scale{{ name }} = scale_at(2u * known{{ name }});
  let scale_up{{ name }} = scale_at(2u * known{{ name }} + 1u);
{%- else %}
  let scale{{ name }} = scale_at(known{{ name }});
{%- endif %}
{%- endcomponent pair_beside %}

{#- Sums of four rows that one thread has. -#}
{% component four(at: integer) -%}
vec4<i32>(acc{{ at }}, acc{{ at + 1 }}, acc{{ at + 2 }}, acc{{ at + 3 }})
{%- endcomponent four %}
