{#- RMSNorm of every head of q and k (v: without weight), rotation of pairs (j, j + dim/2) for the
    first `rotary` of them, and the append to the KV cache. One workgroup a (head, token).
    Angles are products of two small tables, so no position is ever reduced inexactly;
    see codegen/src/kernels/rope.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
{{ <step binding={b.run} /> }}
{{ <input name="qkv" binding={b.qkv} ty={s.qkv} native={c.f16} /> }}
@group(0) @binding({{ b.q_norm }}) var<storage, read> q_norm: array<vec4<f32>>;
// (cos, sin) of `low` positions 0..256, then of multiples of 256.
@group(0) @binding({{ b.angles }}) var<storage, read> angles: array<vec2<f32>>;
{{ <output name="q" binding={b.q} ty={s.q} native={c.f16} /> }}
{% if s.kv_heads > 0 -%}
@group(0) @binding({{ b.k_norm }}) var<storage, read> k_norm: array<vec4<f32>>;
{{ <output name="k" binding={b.k} ty={s.kv} native={c.f16} /> }}
{{ <output name="v" binding={b.v} ty={s.kv} native={c.f16} /> }}
{%- endif %}
{{ <workgroup_reduce name="workgroup_sum" wg={c.wg} sg={c.sg} /> }}

const HALF = {{ d.half_quads }}u;    // quads of half a head
const HEADS = {{ s.heads }}u;
const KV_HEADS = {{ s.kv_heads }}u;

{{ <rotation rotary={s.rotary} /> }}

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let head = wid.x;
  let token = wid.y;
  let position = run.position + token;
  let base = token * {{ d.row_quads }}u + head * 2u * HALF;
  var squares = 0.0;
  for (var i = t; i < HALF; i += {{ c.wg }}u) {
    let a = qkv_at(base + i);
    let b = qkv_at(base + HALF + i);
    squares += dot(a, a) + dot(b, b);
  }
  let r = 1.0 / sqrt(workgroup_sum(t, squares) / {{ s.dim }}.0 + {{ s.eps }});
{%- if s.kv_heads > 0 %}
  let slot = position{% if s.ring > 0 %} % {{ s.ring }}u{% endif %};
{%- endif %}
  for (var i = t; i < HALF; i += {{ c.wg }}u) {
    var a = qkv_at(base + i) * r;
    var b = qkv_at(base + HALF + i) * r;
{%- if s.kv_heads > 0 %}
    if (head >= HEADS + KV_HEADS) {
      let to = (slot * KV_HEADS + head - HEADS - KV_HEADS) * 2u * HALF + i;
      v_put(to, a, 0.0);
      v_put(to + HALF, b, 0.0);
      continue;
    }
    if (head >= HEADS) {
      a *= k_norm[i];
      b *= k_norm[HALF + i];
    } else {
      a *= q_norm[i];
      b *= q_norm[HALF + i];
    }
{%- else %}
    a *= q_norm[i];
    b *= q_norm[HALF + i];
{%- endif %}
    let e0 = angle(position, 4u * i);
    let e1 = angle(position, 4u * i + 1u);
    let e2 = angle(position, 4u * i + 2u);
    let e3 = angle(position, 4u * i + 3u);
    let co = vec4<f32>(e0.x, e1.x, e2.x, e3.x);
    let si = vec4<f32>(e0.y, e1.y, e2.y, e3.y);
    let ra = a * co - b * si;
    let rb = b * co + a * si;
{%- if s.kv_heads > 0 %}
    if (head >= HEADS) {
      let to = (slot * KV_HEADS + head - HEADS) * 2u * HALF + i;
      k_put(to, ra, 0.0);
      k_put(to + HALF, rb, 0.0);
      continue;
    }
{%- endif %}
    let to = token * {{ d.q_quads }}u + head * 2u * HALF + i;
    q_put(to, ra, 0.0);
    q_put(to + HALF, rb, 0.0);
  }
}
