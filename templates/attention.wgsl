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

var<workgroup> qs: array<vec4<f32>, {{ c.rows * d.dim4 }}>;
var<workgroup> scores: array<f32, {{ c.rows * c.keys * d.parts }}>;
var<workgroup> weights: array<f32, {{ c.rows * c.keys }}>;
var<workgroup> row_max: array<f32, {{ c.rows }}>;
var<workgroup> row_scale: array<f32, {{ c.rows }}>;
var<workgroup> row_sum: array<f32, {{ c.rows }}>;

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
  if (t < ROWS) {
    row_max[t] = NONE;
    row_sum[t] = 0.0;
  }
{%- for r in range(end=c.rows) %}{% for j in range(end=d.own) %}
  var o{{ r }}_{{ j }} = vec4<f32>();
{%- endfor %}{% endfor %}
  workgroupBarrier();

  let key = t / LANES;
  let lane = t % LANES;
  for (var at = begin; at < end; at += KEYS) {
    // Scores of one tile of keys, every key row read once for all query rows.
    let position = at + key;
{%- for r in range(end=c.rows) %}
    var s{{ r }} = 0.0;
{%- endfor %}
    if (position < end) {
      let base = (slot(position) * {{ s.kv_heads }}u + kv_head) * DIM4;
      for (var i = lane; i < DIM4; i += LANES) {
        let kq = k_at(base + i);
{%- for r in range(end=c.rows) %}
        s{{ r }} += dot(kq, qs[{{ r }}u * DIM4 + i]);
{%- endfor %}
      }
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
      scores[({{ r }}u * KEYS + key) * {{ d.parts }}u + lane / {{ d.shuffled }}u] = s{{ r }};
{%- endfor %}
    }
    workgroupBarrier();

    // Mask, and the running maximum of each row.
    for (var i = t; i < ROWS * KEYS; i += {{ d.wg }}u) {
      var score = 0.0;
      for (var p = 0u; p < {{ d.parts }}u; p += 1u) { score += scores[i * {{ d.parts }}u + p]; }
      let here = at + i % KEYS;
      let seen = run.position + min(first_row + i / KEYS, all_rows - 1u) / GROUP;
      let visible = here < end && here <= seen{% if s.window > 0 %} && here + {{ s.window }}u > seen{% endif %};
      weights[i] = select(NONE, score, visible);
    }
    workgroupBarrier();
    if (t < ROWS) {
      var m = row_max[t];
      for (var i = 0u; i < KEYS; i += 1u) { m = max(m, weights[t * KEYS + i]); }
      row_scale[t] = exp(row_max[t] - m);
      row_max[t] = m;
    }
    workgroupBarrier();
    for (var i = t; i < ROWS * KEYS; i += {{ d.wg }}u) {
      let w = weights[i];
      weights[i] = select(0.0, exp(w - row_max[i / KEYS]), w > NONE);
    }
    workgroupBarrier();
    if (t < ROWS) {
      var sum = row_sum[t] * row_scale[t];
      for (var i = 0u; i < KEYS; i += 1u) { sum += weights[t * KEYS + i]; }
      row_sum[t] = sum;
    }
    // Values: each thread owns some quads of the head and adds every key's row to them.
{%- for r in range(end=c.rows) %}
    let f{{ r }} = row_scale[{{ r }}];
{%- for j in range(end=d.own) %}
    o{{ r }}_{{ j }} *= f{{ r }};
{%- endfor %}{% endfor %}
    let keys = min(KEYS, end - at);
    for (var i = 0u; i < keys; i += 1u) {
      let base = (slot(at + i) * {{ s.kv_heads }}u + kv_head) * DIM4;
{%- for j in range(end=d.own) %}
      let v{{ j }} = v_at(base + min(t + {{ j * d.wg }}u, DIM4 - 1u));
{%- endfor %}
{%- for r in range(end=c.rows) %}
      let p{{ r }} = weights[{{ r }}u * KEYS + i];
{%- for j in range(end=d.own) %}
      o{{ r }}_{{ j }} += p{{ r }} * v{{ j }};
{%- endfor %}{% endfor %}
    }
    workgroupBarrier();
  }

{%- for r in range(end=c.rows) %}
  if (first_row + {{ r }}u < all_rows) {
    let token = (first_row + {{ r }}u) / GROUP;
    let head = kv_head * GROUP + (first_row + {{ r }}u) % GROUP;
{%- if c.splits > 1 %}
    let base = ((token * {{ s.heads }}u + head) * {{ c.splits }}u + wid.z) * (DIM4 + 1u);
{%- for j in range(end=d.own) %}
    if (t + {{ j * d.wg }}u < DIM4) { partials[base + t + {{ j * d.wg }}u] = o{{ r }}_{{ j }}; }
{%- endfor %}
    if (t == 0u) { partials[base + DIM4] = vec4<f32>(row_max[{{ r }}], row_sum[{{ r }}], 0.0, 0.0); }
{%- else %}
    let base = token * {{ d.out_quads }}u + head * DIM4;
{%- for j in range(end=d.own) %}
    if (t + {{ j * d.wg }}u < DIM4) {
      out_put(base + t + {{ j * d.wg }}u, o{{ r }}_{{ j }} / row_sum[{{ r }}], {% if s.out == "i8" %}grids[0]{% else %}0.0{% endif %});
    }
{%- endfor %}
{%- endif %}
  }
{%- endfor %}
}
