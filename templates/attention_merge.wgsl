{#- Joins the key ranges of a split attention. One workgroup a (head, token); see
    codegen/src/kernels/attention_merge.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
@group(0) @binding({{ b.partials }}) var<storage, read> partials: array<vec4<f32>>;
{% if s.out == "i8" -%}
@group(0) @binding({{ b.grids }}) var<storage, read> grids: array<f32>;
{%- endif %}
{{ <output name="out" binding={b.out} ty={s.out} native={c.f16} /> }}

const DIM4 = {{ d.dim4 }}u;
const SPLITS = {{ s.splits }}u;

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let base = (wid.y * {{ s.heads }}u + wid.x) * SPLITS * (DIM4 + 1u);
  var top = -3.0e38;
{%- if c.sg > 1 %}
  // Each lane looks at some splits; the maximum is then shared by the subgroup.
  let lane = t % {{ c.sg }}u;
  for (var i = lane; i < SPLITS; i += {{ c.sg }}u) { top = max(top, partials[base + i * (DIM4 + 1u) + DIM4].x); }
  for (var step_ = {{ c.sg // 2 }}u; step_ > 0u; step_ >>= 1u) { top = max(top, subgroupShuffleXor(top, step_)); }
{%- else %}
  for (var i = 0u; i < SPLITS; i += 1u) { top = max(top, partials[base + i * (DIM4 + 1u) + DIM4].x); }
{%- endif %}
  for (var q = t; q < DIM4; q += {{ c.wg }}u) {
    var sum = 0.0;
    var o = vec4<f32>();
    for (var i = 0u; i < SPLITS; i += 1u) {
      let start = base + i * (DIM4 + 1u);
      let stat = partials[start + DIM4];
      // A range without keys has the sum 0 and must not count, whatever its maximum says.
      let f = select(0.0, exp(stat.x - top), stat.y > 0.0);
      sum += f * stat.y;
      o += f * partials[start + q];
    }
    out_put(wid.y * {{ d.out_quads }}u + wid.x * DIM4 + q, o / sum, {% if s.out == "i8" %}grids[0]{% else %}0.0{% endif %});
  }
}
