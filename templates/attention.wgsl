{#- Online-softmax attention for prefill and decode. The query heads that share a KV head are rows
    of one matrix: row r is token r / group, head r % group, so keys and values are read once
    for all of them. A workgroup takes `rows` rows, one KV head and one of `splits` key ranges;
    see codegen/src/kernels/attention.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
{{ <step binding={b.run} /> }}
{{ <input name="q" binding={b.q} ty={s.q} native={c.f16} /> }}
{{ <input name="k" binding={b.k} ty={s.kv} native={c.f16} /> }}
{{ <input name="v" binding={b.v} ty={s.kv} native={c.f16} /> }}
{% if c.splits > 1 -%}
// Per (token, head, split): dim/4 quads of the unnormalised sum, then (maximum, sum, 0, 0).
@group(0) @binding({{ b.partials }}) var<storage, read_write> partials: array<vec4<f32>>;
{%- else -%}
{% if s.out == "i8" -%}
@group(0) @binding({{ b.grids }}) var<storage, read> grids: array<f32>;
{%- endif %}
{{ <output name="out" binding={b.out} ty={s.out} native={c.f16} /> }}
{%- endif %}

const ROWS = {{ c.rows }}u;
const KEYS = {{ c.keys }}u;
const LANES = {{ d.lanes }}u;        // threads that share a key's score
const DIM4 = {{ d.dim4 }}u;
const GROUP = {{ d.group }}u;        // query heads of a KV head
const NONE = -3.0e38;

const GROUPS = {{ d.groups }}u;      // groups of threads that share out a tile's values

var<workgroup> qs: array<vec4<f32>, {{ c.rows * d.dim4 }}>;
var<workgroup> scores: array<f32, {{ c.rows * c.keys * d.parts }}>;
var<workgroup> weights: array<f32, {{ c.rows * c.keys }}>;
// Of this tile and the one before, in turns: a thread may still read one while another writes.
var<workgroup> row_max: array<f32, {{ 2 * c.rows }}>;
{%- if d.groups > 1 %}
var<workgroup> group_sum: array<f32, {{ c.rows * d.groups }}>;
{%- endif %}

fn slot(position: u32) -> u32 {
  return position{% if s.ring > 0 %} % {{ s.ring }}u{% endif %};
}

@compute @workgroup_size({{ d.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let first_row = wid.x * ROWS;
  let kv_head = wid.y;
  let all_rows = run.tokens * GROUP;
  let last_row = min(first_row + ROWS, all_rows) - 1u;
  let last = run.position + last_row / GROUP;      // last key any row sees
{%- if s.window > 0 %}
  let oldest = run.position + first_row / GROUP;
  let begin_all = select(0u, oldest - {{ s.window - 1 }}u, oldest >= {{ s.window }}u);
{%- else %}
  let begin_all = 0u;
{%- endif %}
{%- if c.splits > 1 %}
  let span = (last + 1u - begin_all + {{ c.splits - 1 }}u) / {{ c.splits }}u;
  let begin = begin_all + wid.z * span;
  let end = min(begin + span, last + 1u);
{%- else %}
  let begin = begin_all;
  let end = last + 1u;
{%- endif %}

  for (var i = t; i < ROWS * DIM4; i += {{ d.wg }}u) {
    let row = min(first_row + i / DIM4, all_rows - 1u);
    qs[i] = q_at(row / GROUP * {{ d.q_quads }}u + (kv_head * GROUP + row % GROUP) * DIM4 + i % DIM4);
  }
  if (t < 2u * ROWS) { row_max[t] = NONE; }
{%- for r in range(end=c.rows) %}
  var sum{{ r }} = 0.0;
{%- for j in range(end=d.own) %}
  var o{{ r }}_{{ j }} = vec4<f32>();
{%- endfor %}{% endfor %}
  workgroupBarrier();

  let key = t / LANES;
  let lane = t % LANES;
  let group = {% if d.groups > 1 %}t / DIM4{% else %}0u{% endif %};
  let own = {% if d.groups > 1 %}t % DIM4{% else %}t{% endif %};
  var before = 0u;
  for (var at = begin; at < end; at += KEYS) {
    // Scores of one tile of keys, every key row read once for all query rows.
    let position = at + key;
{%- for r in range(end=c.rows) %}
    var s{{ r }} = 0.0;
{%- endfor %}
    let base = (slot(min(position, end - 1u)) * {{ s.kv_heads }}u + kv_head) * DIM4;
    for (var i = lane; i < DIM4; i += LANES) {
      let kq = k_at(base + i);
{%- for r in range(end=c.rows) %}
      s{{ r }} += dot(kq, qs[{{ r }}u * DIM4 + i]);
{%- endfor %}
    }
{%- if d.shuffled > 1 %}
    for (var step_ = {{ d.shuffled // 2 }}u; step_ > 0u; step_ >>= 1u) {
{%- for r in range(end=c.rows) %}
      s{{ r }} += subgroupShuffleXor(s{{ r }}, step_);
{%- endfor %}
    }
{%- endif %}
    if (lane % {{ d.shuffled }}u == 0u) {
{%- for r in range(end=c.rows) %}
      {
        let seen = run.position + min(first_row + {{ r }}u, all_rows - 1u) / GROUP;
        let visible = position < end && position <= seen{% if s.window > 0 %} && position + {{ s.window }}u > seen{% endif %};
        scores[({{ r }}u * KEYS + key) * {{ d.parts }}u + lane / {{ d.shuffled }}u] = select({% if d.parts > 1 %}select(0.0, NONE, lane == 0u){% else %}NONE{% endif %}, s{{ r }}, visible);
      }
{%- endfor %}
    }
    workgroupBarrier();

    // Each thread looks for its row's maximum by itself, which saves a barrier.
    for (var i = t; i < ROWS * KEYS; i += {{ d.wg }}u) {
      let row = i / KEYS;
      var top = row_max[before * ROWS + row];
      for (var j = row * KEYS; j < (row + 1u) * KEYS; j += 1u) { top = max(top, score_at(j)); }
      let score = score_at(i);
      weights[i] = select(0.0, exp(score - top), score > NONE);
      if (i % KEYS == 0u) { row_max[(1u - before) * ROWS + row] = top; }
    }
    workgroupBarrier();

    // Values: a group of threads owns the head's quads and adds every GROUPS-th key's row to them.
{%- for r in range(end=c.rows) %}
    let f{{ r }} = exp(row_max[before * ROWS + {{ r }}u] - row_max[(1u - before) * ROWS + {{ r }}u]);
    sum{{ r }} *= f{{ r }};
{%- for j in range(end=d.own) %}
    o{{ r }}_{{ j }} *= f{{ r }};
{%- endfor %}{% endfor %}
    before = 1u - before;
    for (var i = group; i < KEYS; i += {{ d.at_once * d.groups }}u) {
{%- for u in range(end=d.at_once) %}
      // Keys past the end weigh nothing; the last one stands in for their rows.
      let base{{ u }} = (slot(min(at + i + {{ u * d.groups }}u, end - 1u)) * {{ s.kv_heads }}u + kv_head) * DIM4;
{%- for j in range(end=d.own) %}
      let v{{ u }}_{{ j }} = v_at(base{{ u }} + min(own + {{ j * d.wg }}u, DIM4 - 1u));
{%- endfor %}{% endfor %}
{%- for r in range(end=c.rows) %}{% for u in range(end=d.at_once) %}
      let p{{ r }}_{{ u }} = weights[{{ r }}u * KEYS + i + {{ u * d.groups }}u];
      sum{{ r }} += p{{ r }}_{{ u }};
{%- for j in range(end=d.own) %}
      o{{ r }}_{{ j }} += p{{ r }}_{{ u }} * v{{ u }}_{{ j }};
{%- endfor %}{% endfor %}{% endfor %}
    }
  }
{%- if d.groups > 1 %}

  // The groups' sums come together in the first one, through the memory that held the queries.
  if (own == 0u) {
{%- for r in range(end=c.rows) %}
    group_sum[group * ROWS + {{ r }}u] = sum{{ r }};
{%- endfor %}
  }
  for (var g = 1u; g < GROUPS; g += 1u) {
    workgroupBarrier();
    if (group == g) {
{%- for r in range(end=c.rows) %}
      qs[{{ r }}u * DIM4 + own] = o{{ r }}_0;
{%- endfor %}
    }
    workgroupBarrier();
    if (group == 0u) {
{%- for r in range(end=c.rows) %}
      o{{ r }}_0 += qs[{{ r }}u * DIM4 + own];
      sum{{ r }} += group_sum[g * ROWS + {{ r }}u];
{%- endfor %}
    }
  }
{%- endif %}

{%- for r in range(end=c.rows) %}
  if ({% if d.groups > 1 %}group == 0u && {% endif %}first_row + {{ r }}u < all_rows) {
    let token = (first_row + {{ r }}u) / GROUP;
    let head = kv_head * GROUP + (first_row + {{ r }}u) % GROUP;
{%- if c.splits > 1 %}
    let base = ((token * {{ s.heads }}u + head) * {{ c.splits }}u + wid.z) * (DIM4 + 1u);
{%- for j in range(end=d.own) %}
    if (own + {{ j * d.wg }}u < DIM4) { partials[base + own + {{ j * d.wg }}u] = o{{ r }}_{{ j }}; }
{%- endfor %}
    if (own == 0u) { partials[base + DIM4] = vec4<f32>(row_max[before * ROWS + {{ r }}u], sum{{ r }}, 0.0, 0.0); }
{%- else %}
    let base = token * {{ d.out_quads }}u + head * DIM4;
{%- for j in range(end=d.own) %}
    if (own + {{ j * d.wg }}u < DIM4) {
      out_put(base + own + {{ j * d.wg }}u, o{{ r }}_{{ j }} / sum{{ r }}, {% if s.out == "i8" %}grids[0]{% else %}0.0{% endif %});
    }
{%- endfor %}
{%- endif %}
  }
{%- endfor %}
}

{{ <part_scores parts={d.parts} /> }}
