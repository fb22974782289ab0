{#- Attention of one token from its row of q/k/v: norms and rotation of its heads, the append to the
    KV cache, and online softmax over one of `splits` key ranges. A workgroup takes `heads` query
    heads of one KV head and one range. The token's own key and value never come from the cache:
    whoever's range holds them computes them, and one workgroup a KV head stores them (or some the
    same ones, if it is late where that follows). Where it `computes` rows of q, k and v, workgroups
    exchange those first, behind the sums' shelves. Where it
    `projects`, the ranges' workgroups wait for each other and go on to the output projection;
    see codegen/src/kernels/decode_attention.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
{{ <step binding={b.run} /> }}
{% if d.computes == 1 -%}
{{ <rows_memory f={s.first} n={s.first.norm} c={c} d={d} b={b} /> }}
{%- else -%}
{{ <input name="qkv" binding={b.qkv} ty={s.qkv} native={c.f16} /> }}
{%- endif %}
// Weights of a query head, then of a key head.
@group(0) @binding({{ b.norms }}) var<storage, read> norms: array<vec4<f32>>;
// (cos, sin) of `low` positions 0..256, then of multiples of 256.
@group(0) @binding({{ b.angles }}) var<storage, read> angles: array<{% if d.whole_turns == 1 %}vec4{% else %}vec2{% endif %}<f32>>;
{% if s.append -%}
{{ <output name="k" binding={b.k} ty={s.kv} native={c.f16} /> }}
{{ <output name="v" binding={b.v} ty={s.kv} native={c.f16} /> }}
{%- else -%}
{{ <input name="k" binding={b.k} ty={s.kv} native={c.f16} /> }}
{{ <input name="v" binding={b.v} ty={s.kv} native={c.f16} /> }}
{%- endif %}
{% if d.projects == 1 -%}
{%- if d.slab_floats == 0 %}
@group(0) @binding({{ b.grids }}) var<storage, read> grids: array<f32>;
{%- endif %}
{{ <exchange_memory binding={b.exchange} dim={s.dim} splits={c.splits} wg={c.wg} groups={d.groups} tickets={d.tickets} /> }}
{{ <slab_memory w2={b.w2} out={b.out} bits={d.slab_bits} fields={d.slab_fields} pieces={d.slab_pieces}
    quads={d.slab_quads} gathered={d.slab_gathered} floats={d.slab_floats} /> }}
{%- elif d.partial == 1 -%}
// Per (head, split): dim/4 quads of the unnormalised sum, then (maximum, sum, 0, 0).
@group(0) @binding({{ b.partials }}) var<storage, read_write> partials: array<vec4<f32>>;
{%- else -%}
{% if s.out == "i8" -%}
@group(0) @binding({{ b.grids }}) var<storage, read> grids: array<f32>;
{%- endif %}
{{ <output name="out" binding={b.out} ty={s.out} native={c.f16} /> }}
{%- endif %}

// A quad of the cache as it lies there: it is widened where it is used, so that a load under way
// takes no more registers than it must.
{% if s.kv == "f32" -%}
alias Stored = vec4<f32>;
fn wide(x: Stored) -> vec4<f32> { return x; }
{%- elif c.f16 -%}
alias Stored = vec4<f16>;
fn wide(x: Stored) -> vec4<f32> { return vec4<f32>(x); }
{%- else -%}
alias Stored = vec2<u32>;
fn wide(x: Stored) -> vec4<f32> { return vec4<f32>(unpack2x16float(x.x), unpack2x16float(x.y)); }
{%- endif %}

const HEADS = {{ c.heads }}u;        // query heads of a workgroup
const KEYS = {{ c.keys }}u;          // keys of a tile
const LANES = {{ c.lanes }}u;        // threads that share a key's score
const DIM4 = {{ d.dim4 }}u;
const HALF = {{ d.half }}u;          // quads of half a head
const GROUPS = {{ d.groups }}u;      // groups of threads that share out a tile's values
const TEAM = {{ d.team }}u;          // threads that share a head's norm and rotation
const NONE = -3.0e38;

// Query heads, normalised and rotated{% if s.append %}, then the token's key and value{% endif %}.
var<workgroup> rows: array<vec4<f32>, {{ d.rows * d.dim4 }}>;
// Of this tile and the one before, in turns: a thread may still read one while another writes.
var<workgroup> scores: array<f32, {{ 2 * c.heads * c.keys * d.parts }}>;
{%- if d.squares > 1 %}
var<workgroup> squares: array<f32, {{ d.rows * d.squares }}>;
{%- endif %}
{%- if s.append and d.parts > 1 %}
var<workgroup> own_scores: array<f32, {{ c.heads * d.parts }}>;
{%- endif %}
{%- if d.groups > 1 %}
var<workgroup> group_rows: array<vec4<f32>, {{ (d.groups - 1) * c.heads * d.dim4 }}>;
var<workgroup> group_sums: array<f32, {{ (d.groups - 1) * c.heads }}>;
{%- endif %}

{% if d.computes == 1 and d.whole_turns == 1 -%}
{{ <rotation_in_two rotary={s.rotary} /> }}
{%- elif d.whole_turns == 1 -%}
{{ <rotation_quads rotary={s.rotary} /> }}
{%- else -%}
{{ <rotation rotary={s.rotary} /> }}
{%- endif %}

// Where a position's row of a KV head begins in the cache.
fn place(position: u32, kv_head: u32) -> u32 {
  return (position{% if s.ring > 0 %} % {{ s.ring }}u{% endif %} * {{ s.kv_heads }}u + kv_head) * DIM4;
}

{{ <part_scores parts={d.parts} /> }}

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
{%- if d.projects == 1 %}
  if (t == 0u) { epoch = take_ticket(wid.x == 0u && wid.y == 0u, {{ d.workgroups }}u); }
{%- endif %}
  let position = run.position;
{%- if d.computes == 1 %}
  // Its own rows of q, k and v first; then those that others have not computed in good time.
  var owner = select(wid.x * SPLITS + wid.y, min(wid.x + wid.y * {{ s.heads }}u, OWNERS - 1u), wid.y >= SPLITS);
  let four = t / ROW_LANES;
  let row_lane = t % ROW_LANES;
  var unit_of_row = row_unit(owner * {{ d.first_rows }}u + min(t, {{ d.first_rows - 1 }}u));
{%- for u in range(end=d.first_mine) %}
  var row_w{{ u }} = w[(owner * {{ d.first_quads }}u + four) * CHUNKS + row_lane + {{ u * d.first_lanes }}u];
{%- endfor %}
  make_codes(t, wid.x + wid.y == 0u);
{%- endif %}
  let first_head = wid.x * HEADS;
  let kv_head = wid.x / {{ d.sharers }}u;
{%- if s.window > 0 %}
  let begin_all = select(0u, position - {{ s.window - 1 }}u, position >= {{ s.window }}u);
{%- else %}
  let begin_all = 0u;
{%- endif %}
{%- if d.projects == 1 %}
  // Its own range first; then those, one by one, that others have not computed in good time.
  var split = wid.y;
  var patience = PATIENCE;
  loop {
  if (t == 0u) { atomicStore(&late, 0u); }
{%- endif %}
{%- if c.splits > 1 %}
  let span = (position + 1u - begin_all + {{ c.splits - 1 }}u) / {{ c.splits }}u;
  let begin = begin_all + {% if d.projects == 1 %}split{% else %}wid.y{% endif %} * span;
  let end = min(begin + span, position + 1u);
{%- else %}
  let begin = begin_all;
  let end = position + 1u;
{%- endif %}
{%- if s.append %}
  // Whether this range holds the token itself, and the end of what is in the cache.
  let mine = begin < end && end > position;
  let stored = min(end, position);
{%- else %}
  let stored = end;
{%- endif %}
  let key = t / LANES;
  let lane = t % LANES;
  let group = {% if d.groups > 1 %}t / DIM4{% else %}0u{% endif %};
  let own = {% if d.groups > 1 %}t % DIM4{% else %}t{% endif %};
{%- if d.computes == 1 %}
  {{ <rows_of_owner d={d} /> }}
  if (wid.y >= SPLITS) { return; }
{%- endif %}

  // The first tile is on its way before anything waits.
{%- for p in range(end=d.per) %}{% for i in range(end=d.quads) %}
  var k{{ p }}_{{ i }}: Stored;
{%- endfor %}{% endfor %}
{%- for u in range(end=d.weighed) %}{% for j in range(end=d.own) %}
  var v{{ u }}_{{ j }}: Stored;
{%- endfor %}{% endfor %}
  if (begin < stored) {
    {{ <load_keys at="begin" per={d.per} quads={d.quads} lanes={c.lanes} step={d.step} /> }}
{%- if c.values_ahead %}
    {{ <load_values at="begin" weighed={d.weighed} own={d.own} groups={d.groups} wg={c.wg} /> }}
{%- endif %}
  }

  // Norm and rotation: a team takes a head, a thread of it quads i and i + HALF.
  let team = t / TEAM;
  let member = t % TEAM;
{%- for n in range(end=d.pairs) %}
  let i{{ n }} = {% if d.ragged == 1 %}min(member + {{ n * d.team }}u, HALF - 1u){% else %}member + {{ n * d.team }}u{% endif %};
{%- if d.ragged == 1 %}
  let in{{ n }} = member + {{ n * d.team }}u < HALF;
{%- endif %}
{%- endfor %}
{%- for p in range(end=d.passes) %}
  let row{{ p }} = team + {{ p * d.teams }}u;
{%- if s.append %}
  let live{{ p }} = row{{ p }} < HEADS || (mine && row{{ p }} < {{ d.rows }}u);
  let base{{ p }} = select(first_head + row{{ p }}, {{ s.heads }}u + kv_head + {{ s.kv_heads }}u * (row{{ p }} - HEADS), row{{ p }} >= HEADS) * DIM4;
{%- else %}
  let live{{ p }} = row{{ p }} < HEADS;
  let base{{ p }} = (first_head + row{{ p }}) * DIM4;
{%- endif %}
{%- if d.computes == 0 %}
  var squares{{ p }} = 0.0;
{%- endif %}
{%- for n in range(end=d.pairs) %}
{%- if d.computes == 1 %}
  var got_a{{ p }}_{{ n }} = vec4<u32>();
  var got_b{{ p }}_{{ n }} = vec4<u32>();
{%- else %}
  var a{{ p }}_{{ n }} = vec4<f32>();
  var b{{ p }}_{{ n }} = vec4<f32>();
{%- endif %}
  var wa{{ p }}_{{ n }} = vec4<f32>(1.0);
  var wb{{ p }}_{{ n }} = vec4<f32>(1.0);
  if (live{{ p }}{% if d.ragged == 1 %} && in{{ n }}{% endif %}) {
{%- if d.computes == 1 %}
    got_a{{ p }}_{{ n }} = look_quad(ROWS_AT + 4u * base{{ p }} + i{{ n }});
    got_b{{ p }}_{{ n }} = look_quad(ROWS_AT + 4u * base{{ p }} + HALF + i{{ n }});
{%- else %}
    a{{ p }}_{{ n }} = qkv_at(base{{ p }} + i{{ n }});
    b{{ p }}_{{ n }} = qkv_at(base{{ p }} + HALF + i{{ n }});
{%- endif %}
{%- if s.append %}
    if (row{{ p }} <= HEADS) {
      let of_row = select(0u, {{ d.norm_quads }}u, row{{ p }} == HEADS);
      wa{{ p }}_{{ n }} = norms[of_row + i{{ n }}];
      wb{{ p }}_{{ n }} = norms[of_row + HALF + i{{ n }}];
    }
{%- else %}
    wa{{ p }}_{{ n }} = norms[i{{ n }}];
    wb{{ p }}_{{ n }} = norms[HALF + i{{ n }}];
{%- endif %}
  }
{%- if d.computes == 0 %}
  squares{{ p }} += dot(a{{ p }}_{{ n }}, a{{ p }}_{{ n }}) + dot(b{{ p }}_{{ n }}, b{{ p }}_{{ n }});
{%- endif %}
{%- endfor %}{% endfor %}
{%- for n in range(end=d.pairs) %}
{%- if d.computes == 1 and d.whole_turns == 1 %}
  let angles{{ n }} = angles_of(position, i{{ n }});
{%- elif d.whole_turns == 1 %}
  let turn{{ n }} = turn(position, i{{ n }});
  let co{{ n }} = turn{{ n }}.co;
  let si{{ n }} = turn{{ n }}.si;
{%- else %}
  let e{{ n }}_0 = angle(position, 4u * i{{ n }});
  let e{{ n }}_1 = angle(position, 4u * i{{ n }} + 1u);
  let e{{ n }}_2 = angle(position, 4u * i{{ n }} + 2u);
  let e{{ n }}_3 = angle(position, 4u * i{{ n }} + 3u);
  let co{{ n }} = vec4<f32>(e{{ n }}_0.x, e{{ n }}_1.x, e{{ n }}_2.x, e{{ n }}_3.x);
  let si{{ n }} = vec4<f32>(e{{ n }}_0.y, e{{ n }}_1.y, e{{ n }}_2.y, e{{ n }}_3.y);
{%- endif %}
{%- endfor %}
{%- if d.computes == 1 %}
  {{ <rows_wait d={d} /> }}
{%- if d.whole_turns == 1 %}
{%- for n in range(end=d.pairs) %}
  let turn{{ n }} = turn(angles{{ n }}, i{{ n }});
  let co{{ n }} = turn{{ n }}.co;
  let si{{ n }} = turn{{ n }}.si;
{%- endfor %}
{%- endif %}
{%- for p in range(end=d.passes) %}
  var squares{{ p }} = 0.0;
{%- for n in range(end=d.pairs) %}
  let a{{ p }}_{{ n }} = bitcast<vec4<f32>>(got_a{{ p }}_{{ n }} & vec4<u32>(0xfffffffcu));
  let b{{ p }}_{{ n }} = bitcast<vec4<f32>>(got_b{{ p }}_{{ n }} & vec4<u32>(0xfffffffcu));
  squares{{ p }} += dot(a{{ p }}_{{ n }}, a{{ p }}_{{ n }}) + dot(b{{ p }}_{{ n }}, b{{ p }}_{{ n }});
{%- endfor %}{% endfor %}
{%- endif %}
{%- if d.team_shuffled > 1 %}
  for (var step_ = {{ d.team_shuffled // 2 }}u; step_ > 0u; step_ >>= 1u) {
{%- for p in range(end=d.passes) %}
    squares{{ p }} += subgroupShuffleXor(squares{{ p }}, step_);
{%- endfor %}
  }
{%- endif %}
{%- if d.squares > 1 %}
{%- for p in range(end=d.passes) %}
  if (row{{ p }} < {{ d.rows }}u && member % {{ d.team_shuffled }}u == 0u) {
    squares[row{{ p }} * {{ d.squares }}u + member / {{ d.team_shuffled }}u] = squares{{ p }};
  }
{%- endfor %}
  workgroupBarrier();
{%- for p in range(end=d.passes) %}
  squares{{ p }} = 0.0;
  for (var i = 0u; i < {{ d.squares }}u; i += 1u) {
    squares{{ p }} += squares[min(row{{ p }}, {{ d.rows - 1 }}u) * {{ d.squares }}u + i];
  }
{%- endfor %}
{%- endif %}
{%- for p in range(end=d.passes) %}
  let r{{ p }} = 1.0 / sqrt(squares{{ p }} / {{ s.dim }}.0 + {{ s.eps }});
{%- for n in range(end=d.pairs) %}
  if (live{{ p }}{% if d.ragged == 1 %} && in{{ n }}{% endif %}) {
    let to = row{{ p }} * DIM4 + i{{ n }};
    let a = a{{ p }}_{{ n }} * r{{ p }} * wa{{ p }}_{{ n }};
    let b = b{{ p }}_{{ n }} * r{{ p }} * wb{{ p }}_{{ n }};
{%- if s.append %}
    // Values do not rotate.
    let turns = row{{ p }} <= HEADS;
    let ra = select(a, a * co{{ n }} - b * si{{ n }}, turns);
    let rb = select(b, b * co{{ n }} + a * si{{ n }}, turns);
    rows[to] = ra;
    rows[to + HALF] = rb;
    if (row{{ p }} >= HEADS && wid.x % {{ d.sharers }}u == 0u) {
      let at = place(position, kv_head) + i{{ n }};
      if (turns) {
        k_put(at, ra, 0.0);
        k_put(at + HALF, rb, 0.0);
      } else {
        v_put(at, ra, 0.0);
        v_put(at + HALF, rb, 0.0);
      }
    }
{%- else %}
    rows[to] = a * co{{ n }} - b * si{{ n }};
    rows[to + HALF] = b * co{{ n }} + a * si{{ n }};
{%- endif %}
  }
{%- endfor %}{% endfor %}
{%- for r in range(end=c.heads) %}
  var top{{ r }} = NONE;
  var sum{{ r }} = 0.0;
{%- for j in range(end=d.own) %}
  var o{{ r }}_{{ j }} = vec4<f32>();
{%- endfor %}{% endfor %}
  workgroupBarrier();
{%- if d.computes == 1 %}
  // Without all rows what follows comes to nothing, and nobody is told of it; to stop here would take a barrier more.
  let rows_late = atomicLoad(&late) != 0u;
{%- endif %}
{%- if s.append %}

  // The token itself comes first: its score is every sum's first maximum.
  if (mine) {
{%- for r in range(end=c.heads) %}
    var e{{ r }} = 0.0;
{%- endfor %}
{%- for i in range(end=d.quads) %}
    let own_key_{{ i }} = rows[HEADS * DIM4 + lane + {{ i * c.lanes }}u];
{%- for r in range(end=c.heads) %}
    e{{ r }} += dot(own_key_{{ i }}, rows[{{ r }}u * DIM4 + lane + {{ i * c.lanes }}u]);
{%- endfor %}{% endfor %}
{%- if d.shuffled > 1 %}
    for (var step_ = {{ d.shuffled // 2 }}u; step_ > 0u; step_ >>= 1u) {
{%- for r in range(end=c.heads) %}
      e{{ r }} += subgroupShuffleXor(e{{ r }}, step_);
{%- endfor %}
    }
{%- endif %}
{%- if d.parts > 1 %}
    if (key == 0u && lane % {{ d.shuffled }}u == 0u) {
{%- for r in range(end=c.heads) %}
      own_scores[{{ r * d.parts }}u + lane / {{ d.shuffled }}u] = e{{ r }};
{%- endfor %}
    }
    workgroupBarrier();
{%- for r in range(end=c.heads) %}
    e{{ r }} = 0.0;
    for (var i = 0u; i < {{ d.parts }}u; i += 1u) { e{{ r }} += own_scores[{{ r * d.parts }}u + i]; }
{%- endfor %}
{%- endif %}
{%- for r in range(end=c.heads) %}
    top{{ r }} = e{{ r }};
{%- endfor %}
    if (group == 0u) {
{%- for r in range(end=c.heads) %}
      sum{{ r }} = 1.0;
{%- endfor %}
{%- for j in range(end=d.own) %}
      let own_value_{{ j }} = rows[(HEADS + 1u) * DIM4 + min(own + {{ j * c.wg }}u, DIM4 - 1u)];
{%- for r in range(end=c.heads) %}
      o{{ r }}_{{ j }} = own_value_{{ j }};
{%- endfor %}{% endfor %}
    }
  }
{%- endif %}

  var side = 0u;
  for (var at = begin; at < stored; at += KEYS) {
    // Scores of one tile of keys, every key row read once for all query heads.
{%- for p in range(end=d.per) %}{% for r in range(end=c.heads) %}
    var s{{ r }}_{{ p }} = 0.0;
{%- endfor %}{% endfor %}
{%- for i in range(end=d.quads) %}
{%- for r in range(end=c.heads) %}
    let q{{ r }}_{{ i }} = rows[{{ r }}u * DIM4 + lane + {{ i * c.lanes }}u];
{%- endfor %}
{%- for p in range(end=d.per) %}
    let w{{ p }}_{{ i }} = wide(k{{ p }}_{{ i }});
{%- for r in range(end=c.heads) %}
    s{{ r }}_{{ p }} += dot(w{{ p }}_{{ i }}, q{{ r }}_{{ i }});
{%- endfor %}{% endfor %}{% endfor %}
{%- if not c.values_ahead %}
    {{ <load_values at="at" weighed={d.weighed} own={d.own} groups={d.groups} wg={c.wg} /> }}
{%- endif %}
    let next = at + KEYS;
    if (next < stored) {
      {{ <load_keys at="next" per={d.per} quads={d.quads} lanes={c.lanes} step={d.step} /> }}
    }
{%- if d.shuffled > 1 %}
    for (var step_ = {{ d.shuffled // 2 }}u; step_ > 0u; step_ >>= 1u) {
{%- for p in range(end=d.per) %}{% for r in range(end=c.heads) %}
      s{{ r }}_{{ p }} += subgroupShuffleXor(s{{ r }}_{{ p }}, step_);
{%- endfor %}{% endfor %}
    }
{%- endif %}
    if (lane % {{ d.shuffled }}u == 0u) {
{%- for p in range(end=d.per) %}
      let visible{{ p }} = at + key + {{ p * d.step }}u < stored;
{%- for r in range(end=c.heads) %}
      scores[((side * HEADS + {{ r }}u) * KEYS + key + {{ p * d.step }}u) * {{ d.parts }}u + lane / {{ d.shuffled }}u] = select({% if d.parts > 1 %}select(0.0, NONE, lane == 0u){% else %}NONE{% endif %}, s{{ r }}_{{ p }}, visible{{ p }});
{%- endfor %}{% endfor %}
    }
    workgroupBarrier();

    // Each thread finds the maxima and weighs the keys it adds by itself, which saves a barrier.
{%- for r in range(end=c.heads) %}
    let tile{{ r }} = (side * HEADS + {{ r }}u) * KEYS;
    let old{{ r }} = top{{ r }};
{%- for j in range(end=c.keys) %}
    top{{ r }} = max(top{{ r }}, score_at(tile{{ r }} + {{ j }}u));
{%- endfor %}
    let f{{ r }} = exp(old{{ r }} - top{{ r }});
    sum{{ r }} *= f{{ r }};
{%- for j in range(end=d.own) %}
    o{{ r }}_{{ j }} *= f{{ r }};
{%- endfor %}
{%- endfor %}
{%- for u in range(end=d.weighed) %}
{%- for r in range(end=c.heads) %}
    let score{{ r }}_{{ u }} = score_at(tile{{ r }} + group + {{ u * d.groups }}u);
    let p{{ r }}_{{ u }} = select(0.0, exp(score{{ r }}_{{ u }} - top{{ r }}), score{{ r }}_{{ u }} > NONE);
    sum{{ r }} += p{{ r }}_{{ u }};
{%- for j in range(end=d.own) %}
    o{{ r }}_{{ j }} += p{{ r }}_{{ u }} * wide(v{{ u }}_{{ j }});
{%- endfor %}{% endfor %}{% endfor %}
{%- if c.values_ahead %}
    if (next < stored) {
      {{ <load_values at="next" weighed={d.weighed} own={d.own} groups={d.groups} wg={c.wg} /> }}
    }
{%- endif %}
    side = 1u - side;
  }
{%- if d.groups > 1 %}

  // The groups' sums come together in the first one.
  if (group > 0u) {
{%- for r in range(end=c.heads) %}
    group_rows[((group - 1u) * HEADS + {{ r }}u) * DIM4 + own] = o{{ r }}_0;
    if (own == 0u) { group_sums[(group - 1u) * HEADS + {{ r }}u] = sum{{ r }}; }
{%- endfor %}
  }
  workgroupBarrier();
  if (group == 0u) {
{%- for g in range(end=d.groups - 1) %}{% for r in range(end=c.heads) %}
    o{{ r }}_0 += group_rows[{{ g * c.heads + r }}u * DIM4 + own];
    sum{{ r }} += group_sums[{{ g * c.heads + r }}u];
{%- endfor %}{% endfor %}
  }
{%- endif %}
{%- if d.projects == 1 %}
  if (group == 0u{% if d.computes == 1 %} && !rows_late{% endif %}) { publish(wid.x * SPLITS + split, own, o0_0, vec2<f32>(top0, sum0)); }
  // What it has computed for others it must see itself, or it would go on for ever.
  if (patience < PATIENCE) { storageBarrier(); }
  // Of the product it takes as many rows as share it out among the head's workgroups; they need not wait.
{{ <slab_loads wg={c.wg} split={d.slab_split} quads={d.slab_quads} per={d.slab_per} mine={d.slab_mine} chunks={d.slab_chunks}
    floats={d.slab_floats} fields={d.slab_fields} groups={d.slab_groups} scales={d.slab_scales}
    quad0={"wid.y * " ~ d.slab_quads ~ "u"} piece0={"wid.x * " ~ d.slab_pieces ~ "u"} /> }}
  let grid = {% if d.slab_floats == 1 %}0.0{% else %}grids[0]{% endif %};
{{ <exchange_wait groups={d.groups} ranges={d.ranges} /> }}
  if (workgroupUniformLoad(&late) == 0u) {
    {{ <exchange_join splits={c.splits} groups={d.groups} ranges={d.ranges} /> }}
    if (group == 0u) { put_hs(own, o / mass, grid); }
    workgroupBarrier();
{{ <slab_sums wg={c.wg} split={d.slab_split} shuffled={d.slab_shuffled} quads={d.slab_quads} per={d.slab_per} mine={d.slab_mine}
    bits={d.slab_bits} fields={d.slab_fields} whole={d.slab_whole} gathered={d.slab_gathered} floats={d.slab_floats}
    quad0={"wid.y * " ~ d.slab_quads ~ "u"} /> }}
    break;
  }
{%- if d.computes == 1 %}
  {{ <rows_missing d={d} /> }}
{%- else %}
  {{ <exchange_missing ranges={d.ranges} /> }}
  split = missing;
{%- endif %}
  patience = 1u;
  }
{%- else %}
{%- if d.groups > 1 %}
  if (group > 0u) { return; }
{%- endif %}
{%- for r in range(end=c.heads) %}
{%- if d.partial == 1 %}
  let to{{ r }} = ((first_head + {{ r }}u) * {{ c.splits }}u + wid.y) * (DIM4 + 1u);
{%- for j in range(end=d.own) %}
  if (own + {{ j * c.wg }}u < DIM4) { partials[to{{ r }} + own + {{ j * c.wg }}u] = o{{ r }}_{{ j }}; }
{%- endfor %}
  if (own == 0u) { partials[to{{ r }} + DIM4] = vec4<f32>(top{{ r }}, sum{{ r }}, 0.0, 0.0); }
{%- else %}
{%- for j in range(end=d.own) %}
  if (own + {{ j * c.wg }}u < DIM4) {
    out_put((first_head + {{ r }}u) * DIM4 + own + {{ j * c.wg }}u, o{{ r }}_{{ j }} / sum{{ r }}, {% if s.out == "i8" %}grids[0]{% else %}0.0{% endif %});
  }
{%- endfor %}
{%- endif %}
{%- endfor %}
{%- endif %}
}

{#- Loads a thread's share of the tile of keys at `at`: `per` rows, `step` rows apart. The last key
    in the cache stands in for those past the end, which count for nothing. -#}
{% component load_keys(at: string, per: integer, quads: integer, lanes: integer, step: integer) -%}
{% for p in range(end=per) -%}
    let row_k{{ p }} = place(min({{ at }} + key + {{ p * step }}u, stored - 1u), kv_head) + lane;
{%- for i in range(end=quads) %}
    k{{ p }}_{{ i }} = k[row_k{{ p }} + {{ i * lanes }}u];
{%- endfor %}
    {% endfor %}
{%- endcomponent load_keys %}

{#- Likewise its share of the values: every `groups`-th key's row, of which it has `own` quads. -#}
{% component load_values(at: string, weighed: integer, own: integer, groups: integer, wg: integer) -%}
{% for u in range(end=weighed) -%}
    let row_v{{ u }} = place(min({{ at }} + group + {{ u * groups }}u, stored - 1u), kv_head);
{%- for j in range(end=own) %}
    v{{ u }}_{{ j }} = v[row_v{{ u }} + min(own + {{ j * wg }}u, DIM4 - 1u)];
{%- endfor %}
    {% endfor %}
{%- endcomponent load_values %}

{#- Workgroups of one dispatch that tell each other results: the key ranges of a head, each a workgroup, whose
    unnormalised sums all of them need. WGSL lets nobody count on another workgroup that runs at the same time, nor on
    the order in which what it stores becomes visible. So every word carries in its last two bits the dispatch it is of
    (floats are rounded to 22 significant ones), and who has waited long enough computes what is missing by itself.

    `exchange`: word 0 counts, from word 64 on of each (head, range) its sum, one component of all quads after the
    other so that neighbouring threads meet neighbouring words, then its maximum and its mass. -#}
{% component exchange_memory(binding: integer, dim: integer, splits: integer, wg: integer, groups: integer,
                            tickets: integer) -%}
@group(0) @binding({{ binding }}) var<storage, read_write> exchange: array<atomic<u32>>;
const SPLITS = {{ splits }}u;
const SHELF = {{ dim + 32 }}u;       // words of a range
const PATIENCE = 64u;                // looks before it computes what others have not
// Of this dispatch, 0 to 3.
var<workgroup> epoch: u32;
// Whether something has not come; then, which range is the first of those.
var<workgroup> late: atomic<u32>;
var<workgroup> tops: array<f32, {{ splits }}>;
var<workgroup> masses: array<f32, {{ splits }}>;
{%- if groups > 1 %}
var<workgroup> joined: array<vec4<f32>, {{ wg }}>;
var<workgroup> joined_mass: array<f32, {{ groups }}>;
{%- endif %}

// Each dispatch takes {{ tickets }} tickets, whatever its workgroups are, so that all of one see the same number of whole
// {{ tickets }}s, and the next one another: words of the one before are told apart.
fn take_ticket(first: bool, workgroups: u32) -> u32 {
  return (atomicAdd(&exchange[0], select(1u, {{ tickets + 1 }}u - workgroups, first)) / {{ tickets }}u + 1u) % 4u;
}
fn shelf(range: u32) -> u32 { return 64u + range * SHELF; }
fn put_word(at: u32, value: f32) { atomicStore(&exchange[at], ((bitcast<u32>(value) + 2u) & 0xfffffffcu) | epoch); }
fn publish(range: u32, quad: u32, sum: vec4<f32>, stat: vec2<f32>) {
  let at = shelf(range) + quad;
  put_word(at, sum.x);
  put_word(at + DIM4, sum.y);
  put_word(at + 2u * DIM4, sum.z);
  put_word(at + 3u * DIM4, sum.w);
  if (quad < 2u) { put_word(at + 4u * DIM4, select(stat.y, stat.x, quad == 0u)); }
}
fn look_quad(at: u32) -> vec4<u32> {
  return vec4<u32>(atomicLoad(&exchange[at]), atomicLoad(&exchange[at + DIM4]),
    atomicLoad(&exchange[at + 2u * DIM4]), atomicLoad(&exchange[at + 3u * DIM4]));
}
fn look_stat(at: u32) -> vec2<u32> {
  return vec2<u32>(atomicLoad(&exchange[at]), atomicLoad(&exchange[at + 1u]));
}
fn quad_is_here(x: vec4<u32>) -> bool { return all((x & vec4<u32>(3u)) == vec4<u32>(epoch)); }
fn stat_is_here(x: vec2<u32>) -> bool { return all((x & vec2<u32>(3u)) == vec2<u32>(epoch)); }
{%- endcomponent exchange_memory %}

{#- Looks for what the ranges of head `wid.x` have until all is there or `patience` is at its end: a thread for its quad
    of every `groups`th range, `ranges` of them, and one of the first threads for each range's maximum and mass. -#}
{% component exchange_wait(groups: integer, ranges: integer) -%}
{%- for i in range(end=ranges) %}
  let range{{ i }} = min(group + {{ i * groups }}u, SPLITS - 1u);
  let shelf{{ i }} = shelf(wid.x * SPLITS + range{{ i }}) + own;
  var got{{ i }} = look_quad(shelf{{ i }});
{%- endfor %}
  let stat_range = min(t, SPLITS - 1u);
  let stat_shelf = shelf(wid.x * SPLITS + stat_range) + 4u * DIM4;
  var got_stat = look_stat(stat_shelf);
  var here = false;
  for (var look = 0u; look < patience; look += 1u) {
    here = stat_is_here(got_stat){% for i in range(end=ranges) %} && quad_is_here(got{{ i }}){% endfor %};
    if (here) { break; }
    if (!stat_is_here(got_stat)) { got_stat = look_stat(stat_shelf); }
{%- for i in range(end=ranges) %}
    if (!quad_is_here(got{{ i }})) { got{{ i }} = look_quad(shelf{{ i }}); }
{%- endfor %}
  }
  if (!here) {
    // What the last look brought.
    here = stat_is_here(got_stat){% for i in range(end=ranges) %} && quad_is_here(got{{ i }}){% endfor %};
    if (!here) { atomicStore(&late, 1u); }
  }
  if (t < SPLITS) {
    tops[t] = bitcast<f32>(got_stat.x & 0xfffffffcu);
    masses[t] = bitcast<f32>(got_stat.y & 0xfffffffcu);
  }
{%- endcomponent exchange_wait %}

{#- Which range is `missing`, the first one if there are several. -#}
{% component exchange_missing(ranges: integer) -%}
if (t == 0u) { atomicStore(&late, SPLITS); }
  workgroupBarrier();
  if (!stat_is_here(got_stat)) { atomicMin(&late, stat_range); }
{%- for i in range(end=ranges) %}
  if (!quad_is_here(got{{ i }})) { atomicMin(&late, range{{ i }}); }
{%- endfor %}
  let missing = workgroupUniformLoad(&late);
{%- endcomponent exchange_missing %}

{#- Joins them, once all are there: `o` is the sum of the threads of group 0, one a quad, and `mass` what it is
    divided by. -#}
{% component exchange_join(splits: integer, groups: integer, ranges: integer) -%}
    var top = tops[0];
    for (var i = 1u; i < SPLITS; i += 1u) { top = max(top, tops[i]); }
    var o = vec4<f32>();
    var mass = 0.0;
{%- for i in range(end=ranges) %}
    {
      // A range that saw no key counts for nothing, whatever its maximum says.
      let weight = masses[range{{ i }}];
      let counts = weight > 0.0{% if (i + 1) * groups > splits %} && group + {{ i * groups }}u < SPLITS{% endif %};
      let factor = select(0.0, exp(tops[range{{ i }}] - top), counts);
      o += factor * bitcast<vec4<f32>>(got{{ i }} & vec4<u32>(0xfffffffcu));
      mass += factor * weight;
    }
{%- endfor %}
{%- if groups > 1 %}
    joined[t] = o;
    if (own == 0u) { joined_mass[group] = mass; }
    workgroupBarrier();
    if (group == 0u) {
      for (var g = 1u; g < {{ groups }}u; g += 1u) {
        o += joined[g * DIM4 + own];
        mass += joined_mass[g];
      }
    }
{%- endif %}
{%- endcomponent exchange_join %}

{#- As `rotation_quads`, with the table's entries loaded before the wait and used behind it. -#}
{% component rotation_in_two(rotary: integer) -%}
struct Angles { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }
fn angles_of(position: u32, quad: u32) -> Angles {
  let at = 2u * min(quad, {% if rotary > 3 %}{{ rotary // 4 - 1 }}{% else %}0{% endif %}u);
  let low = (position & 255u) * {{ rotary // 2 }}u + at;
  let high = (256u + (position >> 8u)) * {{ rotary // 2 }}u + at;
  return Angles(angles[low], angles[low + 1u], angles[high], angles[high + 1u]);
}
struct Turn { co: vec4<f32>, si: vec4<f32> }
fn turn(entries: Angles, quad: u32) -> Turn {
  if (quad >= {{ rotary // 4 }}u) { return Turn(vec4<f32>(1.0), vec4<f32>()); }
  let low_co = vec4<f32>(entries.a.xz, entries.b.xz);
  let low_si = vec4<f32>(entries.a.yw, entries.b.yw);
  let high_co = vec4<f32>(entries.c.xz, entries.d.xz);
  let high_si = vec4<f32>(entries.c.yw, entries.d.yw);
  return Turn(low_co * high_co - low_si * high_si, low_si * high_co + low_co * high_si);
}
{%- endcomponent rotation_in_two %}

{#- Rows of q, k and v, which the workgroups share out and exchange like the sums of key ranges: `owner` has the rows from
    `owner * first_rows` on. Behind the key ranges' workgroups come some that only compute rows, of k and v. -#}
{% component rows_memory(f: map, n: map, c: map, d: map, b: map) -%}
{% set fields = d.first_fields -%}
{% set codes = "u32" if fields == 1 else ("vec2<u32>" if fields == 2 else "vec4<u32>") -%}
@group(0) @binding({{ b.w }}) var<storage, read> w: array<vec4<u32>>;
@group(0) @binding({{ b.scales }}) var<storage, read> scales: array<f32>;
{{ <norm_site x={b.x} site={b.site} quads={d.x_quads} /> }}
{%- if n.residual %}
{{ <norm_residual y={b.y} ty={n.y} sum={b.sum} quads={d.x_quads} native={false} banks={d.banks} /> }}
{%- endif %}
{{ <norm_sums wg={c.wg} sg={c.sg} residual={n.residual} norm={n.norm} /> }}
{{ <fields format={f.format} /> }}
{%- if f.grids %}
{{ <srq /> }}
{%- endif %}
const CHUNKS = {{ d.first_chunks }}u;      // 16-byte pieces of four rows
const ROW_LANES = {{ d.first_lanes }}u;   // threads that share four rows
const ROW_PARTS = {{ d.first_parts }}u;   // partial sums of a row left after the shuffles
const OWNERS = {{ d.owners }}u;
const ROWS_AT = {{ d.rows_at }}u;         // their place among the exchanged words
var<workgroup> xs: array<{{ codes }}, {{ d.first_chunks }}>;
var<workgroup> row_parts: array<i32, {{ d.first_rows * d.first_parts }}>;
{{ <put_codes fields={fields} /> }}

// The norms of the residual stream, which every workgroup makes by itself, as codes in `xs`.
fn make_codes(t: u32, keep: bool) {
{{ <norm_row base="0u" wg={c.wg} per_thread={d.per_thread} quads={d.x_quads} width={f.columns} eps={n.eps}
    residual={n.residual} scaled={n.scaled} norm={n.norm} keep="keep" /> }}
  let grid_ = grid_at(0u);
{%- for i in range(end=d.per_thread) %}
  if (in{{ i }}) { put_codes(q{{ i }}, x{{ i }}, grid_); }
{%- endfor %}
  workgroupBarrier();
}

// The grid of the input, a row's scale, and the grid its result is put on: on their way before the sum is there.
fn row_unit(row: u32) -> vec3<f32> {
{%- if f.grids and f.split_a > 0 %}
  let grid = grid_at(select(select(3u, 2u, row < {{ f.split_b }}u), 1u, row < {{ f.split_a }}u));
{%- elif f.grids %}
  let grid = grid_at(1u);
{%- else %}
  let grid = 0.0;
{%- endif %}
  return vec3<f32>(grid_at(0u), scales[row], grid);
}
// A result, as other kernels would read it; the components of quads lie apart.
fn put_row(row: u32, sum: i32, unit: vec3<f32>) {
  var y = vec4<f32>(f32(sum >> {{ d.first_shift }}u) * (unit.x * unit.y));
{%- if f.grids %}
  y = srq(y, unit.z);
{%- endif %}
{%- if f.out == "f16" %}
  y = vec4<f32>(unpack2x16float(pack2x16float(y.xy)), 0.0, 0.0);
{%- endif %}
  put_word(ROWS_AT + row / (4u * DIM4) * (4u * DIM4) + row % 4u * DIM4 + row % (4u * DIM4) / 4u, y.x);
}
{%- endcomponent rows_memory %}

{#- Computes the rows of `owner`. -#}
{% component rows_of_owner(d: map) -%}
{%- set words = ["x", "y", "z", "w"] -%}
  {
    var part = vec4<i32>();
{%- for u in range(end=d.first_mine) %}
    let x{{ u }} = xs[row_lane + {{ u * d.first_lanes }}u];
{%- for f in range(end=d.first_fields) %}
{%- set h = "x" ~ u if d.first_fields == 1 else "x" ~ u ~ "." ~ words[f] %}
    part += vec4<i32>(
      dot4I8Packed(field_{{ f }}(row_w{{ u }}.x), {{ h }}), dot4I8Packed(field_{{ f }}(row_w{{ u }}.y), {{ h }}),
      dot4I8Packed(field_{{ f }}(row_w{{ u }}.z), {{ h }}), dot4I8Packed(field_{{ f }}(row_w{{ u }}.w), {{ h }}));
{%- endfor %}{% endfor %}
{%- if d.first_shuffled >= 4 %}
    // Each of four lanes ends up with one row's sum.
    let odd = (t & 1u) == 1u;
    let upper = (t & 2u) == 2u;
    let two = select(part.xz, part.yw, odd) + subgroupShuffleXor(select(part.yw, part.xz, odd), 1u);
    var one = select(two.x, two.y, upper) + subgroupShuffleXor(select(two.y, two.x, upper), 2u);
{%- for step in [4, 8, 16, 32] %}
{%- if step < d.first_shuffled %}
    one += subgroupShuffleXor(one, {{ step }}u);
{%- endif %}
{%- endfor %}
    if (t % {{ d.first_shuffled }}u < 4u) {
      row_parts[(four * ROW_PARTS + row_lane / {{ d.first_shuffled }}u) * 4u + t % 4u] = one;
    }
{%- else %}
    for (var r = 0u; r < 4u; r += 1u) { row_parts[(four * ROW_PARTS + row_lane) * 4u + r] = part[r]; }
{%- endif %}
  }
  workgroupBarrier();
  if (t < {{ d.first_rows }}u) {
    var sum_ = 0;
    for (var i = 0u; i < ROW_PARTS; i += 1u) { sum_ += row_parts[(t / 4u * ROW_PARTS + i) * 4u + t % 4u]; }
    put_row(owner * {{ d.first_rows }}u + t, sum_, unit_of_row);
  }
  // What it has computed for others it must see itself.
  if (patience < PATIENCE) { storageBarrier(); }
{%- endcomponent rows_of_owner %}

{#- `rows_late` may be the other wait's, of a thread that is ahead in an empty range: then the pass is repeated in
    any case, and the barrier behind `publish` keeps later ones in step.

    Looks for the rows of this workgroup's heads until all are there or `patience` is at its end: in `got_aP_N` and
    `got_bP_N` quads as threads normalise and rotate them. -#}
{% component rows_wait(d: map) -%}
  {
    var here = false;
    for (var look = 0u; look < patience; look += 1u) {
      {{ <rows_here d={d} /> }}
      if (here) { break; }
{%- for p in range(end=d.passes) %}{% for n in range(end=d.pairs) %}
      if (live{{ p }} && !quad_is_here(got_a{{ p }}_{{ n }})) { got_a{{ p }}_{{ n }} = look_quad(ROWS_AT + 4u * base{{ p }} + i{{ n }}); }
      if (live{{ p }} && !quad_is_here(got_b{{ p }}_{{ n }})) { got_b{{ p }}_{{ n }} = look_quad(ROWS_AT + 4u * base{{ p }} + HALF + i{{ n }}); }
{%- endfor %}{% endfor %}
    }
    if (!here) {
      {{ <rows_here d={d} /> }}
      if (!here) { atomicStore(&late, 1u); }
    }
  }
{%- endcomponent rows_wait %}

{#- Goes on with the first owner whose rows are missing, or if none are with the first such range. -#}
{% component rows_missing(d: map) -%}
if (t == 0u) { atomicStore(&late, OWNERS + SPLITS); }
  workgroupBarrier();
{%- for p in range(end=d.passes) %}{% for n in range(end=d.pairs) %}
  if (live{{ p }} && !quad_is_here(got_a{{ p }}_{{ n }})) { atomicMin(&late, (base{{ p }} + i{{ n }}) / {{ d.first_quads }}u); }
  if (live{{ p }} && !quad_is_here(got_b{{ p }}_{{ n }})) { atomicMin(&late, (base{{ p }} + HALF + i{{ n }}) / {{ d.first_quads }}u); }
{%- endfor %}{% endfor %}
  if (!stat_is_here(got_stat)) { atomicMin(&late, OWNERS + stat_range); }
{%- for i in range(end=d.ranges) %}
  if (!quad_is_here(got{{ i }})) { atomicMin(&late, OWNERS + range{{ i }}); }
{%- endfor %}
  let missing = workgroupUniformLoad(&late);
  if (missing >= OWNERS) {
    split = missing - OWNERS;
  } else {
    owner = missing;
    unit_of_row = row_unit(owner * {{ d.first_rows }}u + min(t, {{ d.first_rows - 1 }}u));
{%- for u in range(end=d.first_mine) %}
    row_w{{ u }} = w[(owner * {{ d.first_quads }}u + four) * CHUNKS + row_lane + {{ u * d.first_lanes }}u];
{%- endfor %}
  }
{%- endcomponent rows_missing %}

{#- `here`: whether all that a thread has looked for has come. -#}
{% component rows_here(d: map) -%}
here = true;
{%- for p in range(end=d.passes) %}
      if (live{{ p }}) {
        here = here{% for n in range(end=d.pairs) %} && quad_is_here(got_a{{ p }}_{{ n }}) && quad_is_here(got_b{{ p }}_{{ n }}){% endfor %};
      }
{%- endfor %}
{%- endcomponent rows_here %}
