{#- Joins the key ranges of a split attention. A workgroup takes some quads of a (head, token), and
    its groups of threads share out the ranges; see codegen/src/kernels/attention_merge.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
@group(0) @binding({{ b.partials }}) var<storage, read> partials: array<vec4<f32>>;
{% if s.out == "i8" -%}
@group(0) @binding({{ b.grids }}) var<storage, read> grids: array<f32>;
{%- endif %}
{{ <output name="out" binding={b.out} ty={s.out} native={c.f16} /> }}

const DIM4 = {{ d.dim4 }}u;
const SPLITS = {{ s.splits }}u;
const QUADS = {{ c.quads }}u;        // quads of the head a workgroup computes
const GROUPS = {{ d.groups }}u;      // groups of threads that share out the ranges
const RANGE = DIM4 + 1u;             // quads of a range: its sum, then (maximum, mass, 0, 0)

{{ <merge_memory wg={c.wg} sg={c.sg} groups={d.groups} splits={s.splits} /> }}

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let head = wid.x / {{ d.pieces }}u;
  let base = (wid.y * {{ s.heads }}u + head) * SPLITS * RANGE;
  let group = t / QUADS;
  let quad = wid.x % {{ d.pieces }}u * QUADS + t % QUADS;
  let column = base + min(quad, DIM4 - 1u);
{%- if d.ahead == 1 %}
  // A thread's share of the ranges is on its way before their maxima are compared.
{%- for i in range(end=d.own) %}
  let v{{ i }} = partials[column + min(group + {{ i * d.groups }}u, SPLITS - 1u) * RANGE];
{%- endfor %}
{%- endif %}
  {{ <merge_ranges wg={c.wg} sg={c.sg} groups={d.groups} splits={s.splits} own={d.own} ahead={d.ahead} /> }}
  if (group == 0u && quad < DIM4) {
    out_put(wid.y * {{ d.out_quads }}u + head * DIM4 + quad, o / mass, {% if s.out == "i8" %}grids[0]{% else %}0.0{% endif %});
  }
}
