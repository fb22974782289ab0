{#- y = max(x W + bias, 0). A thread computes four neighbouring outputs of `c.tokens` tokens, so a
    weight that was read serves all of them. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
{{ <step binding={b.run} /> }}
{{ <input name="x" binding={b.x} ty={s.storage} native={c.f16} /> }}
{{ <input name="w" binding={b.w} ty={s.storage} native={c.f16} /> }}
@group(0) @binding({{ b.bias }}) var<storage, read> bias: array<vec4<f32>>;
{{ <output name="y" binding={b.y} ty={s.storage} native={c.f16} /> }}

const QUADS = {{ d.quads }}u;      // outputs of a token, in fours
const INPUTS = {{ d.inputs }}u;    // inputs of a token, in fours

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let quad = wid.x * {{ c.wg }}u + t;
  let first = wid.y * {{ c.tokens }}u;
  if (quad >= QUADS) { return; }
{%- for i in range(end=c.tokens) %}
  // Tokens past the last are computed again from the last one and never stored.
  let x{{ i }} = min(first + {{ i }}u, run.tokens - 1u) * INPUTS;
  var sum{{ i }} = bias[quad];
{%- endfor %}
  for (var k = 0u; k < INPUTS; k += 1u) {
    let w0 = w_at((4u * k) * QUADS + quad);
    let w1 = w_at((4u * k + 1u) * QUADS + quad);
    let w2 = w_at((4u * k + 2u) * QUADS + quad);
    let w3 = w_at((4u * k + 3u) * QUADS + quad);
{%- for i in range(end=c.tokens) %}
    let q{{ i }} = x_at(x{{ i }} + k);
    sum{{ i }} += q{{ i }}.x * w0 + q{{ i }}.y * w1 + q{{ i }}.z * w2 + q{{ i }}.w * w3;
{%- endfor %}
  }
{%- for i in range(end=c.tokens) %}
  if (first + {{ i }}u < run.tokens) {
    y_put((first + {{ i }}u) * QUADS + quad, max(sum{{ i }}, vec4<f32>()), 0.0);
  }
{%- endfor %}
}
