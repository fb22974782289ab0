{#- Joins the key ranges of one head of a split attention, and multiplies the columns of the output
    projection that meet it. A workgroup takes a head and some of the rows; see
    codegen/src/kernels/merge_gemv.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={false} /> }}
@group(0) @binding({{ b.partials }}) var<storage, read> partials: array<vec4<f32>>;
{%- if d.slab_floats == 0 %}
@group(0) @binding({{ b.grids }}) var<storage, read> grids: array<f32>;
{%- endif %}
{{ <slab_memory w2={b.w2} out={b.out} bits={d.slab_bits} fields={d.slab_fields} pieces={d.slab_pieces}
    quads={d.slab_quads} gathered={d.slab_gathered} floats={d.slab_floats} /> }}

const DIM4 = {{ d.dim4 }}u;
const SPLITS = {{ s.merge.splits }}u;
const QUADS = {{ d.quads }}u;        // threads of a group that shares out the ranges
const GROUPS = {{ d.groups }}u;
const RANGE = DIM4 + 1u;             // quads of a range: its sum, then (maximum, mass, 0, 0)

{{ <merge_memory wg={c.wg} sg={c.sg} groups={d.groups} splits={s.merge.splits} /> }}

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let head = wid.x / {{ c.ranges }}u;
  let base = head * SPLITS * RANGE;
  let group = t / QUADS;
  let quad = t % QUADS;
  let column = base + min(quad, DIM4 - 1u);
  // A thread's share of the ranges is on its way before their maxima are compared, and so are the
  // weights.
{%- for i in range(end=d.own) %}
  let v{{ i }} = partials[column + min(group + {{ i * d.groups }}u, SPLITS - 1u) * RANGE];
{%- endfor %}
{{ <slab_loads wg={c.wg} split={c.split} quads={d.slab_quads} per={d.slab_per} mine={d.slab_mine} chunks={d.slab_chunks}
    floats={d.slab_floats} fields={d.slab_fields} groups={d.slab_groups} scales={d.slab_scales}
    quad0={"wid.x % " ~ c.ranges ~ "u * " ~ d.slab_quads ~ "u"} piece0={"head * " ~ d.slab_pieces ~ "u"} /> }}
  let grid = {% if d.slab_floats == 1 %}0.0{% else %}grids[0]{% endif %};
  {{ <merge_ranges wg={c.wg} sg={c.sg} groups={d.groups} splits={s.merge.splits} own={d.own} ahead={1} /> }}
  if (group == 0u && quad < DIM4) { put_hs(quad, o / mass, grid); }
  workgroupBarrier();
{{ <slab_sums wg={c.wg} split={c.split} shuffled={d.slab_shuffled} quads={d.slab_quads} per={d.slab_per} mine={d.slab_mine}
    bits={d.slab_bits} fields={d.slab_fields} whole={d.slab_whole} gathered={d.slab_gathered} floats={d.slab_floats}
    quad0={"wid.x % " ~ c.ranges ~ "u * " ~ d.slab_quads ~ "u"} /> }}
}
