{#- Joins the key ranges of one head of a split attention, and multiplies the columns of the output
    projection that meet it. A workgroup takes a head and some of the rows; see
    codegen/src/kernels/merge_gemv.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={false} /> }}
@group(0) @binding({{ b.partials }}) var<storage, read> partials: array<vec4<f32>>;
@group(0) @binding({{ b.grids }}) var<storage, read> grids: array<f32>;
{{ <slab_memory w2={b.w2} out={b.out} bits={d.slab_bits} fields={d.slab_fields} pieces={d.slab_pieces} /> }}

const DIM4 = {{ d.dim4 }}u;
const SPLITS = {{ s.merge.splits }}u;
const QUADS = {{ d.quads }}u;        // threads of a group that shares out the ranges
const GROUPS = {{ d.groups }}u;
const RANGE = DIM4 + 1u;             // quads of a range: its sum, then (maximum, mass, 0, 0)

// What each range counts for; zero where it saw no key, whatever its maximum says.
var<workgroup> factors: array<f32, {{ s.merge.splits }}>;
{% if d.groups > 1 -%}
var<workgroup> sums: array<vec4<f32>, {{ c.wg }}>;
{%- endif %}
{{ <workgroup_reduce name="largest" wg={c.wg} sg={c.sg} op="max" /> }}
{{ <workgroup_reduce name="total" wg={c.wg} sg={c.sg} /> }}

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
    quad0={"wid.x % " ~ c.ranges ~ "u * " ~ d.slab_quads ~ "u"} piece0={"head * " ~ d.slab_pieces ~ "u"} /> }}
  let grid = grids[0];
  var top = -3.0e38;
  for (var i = t; i < SPLITS; i += {{ c.wg }}u) { top = max(top, partials[base + i * RANGE + DIM4].x); }
  top = largest(t, top);
  var mass = 0.0;
  for (var i = t; i < SPLITS; i += {{ c.wg }}u) {
    let stat = partials[base + i * RANGE + DIM4];
    let f = select(0.0, exp(stat.x - top), stat.y > 0.0);
    factors[i] = f;
    mass += f * stat.y;
  }
  mass = total(t, mass);
  workgroupBarrier();
  var o = vec4<f32>();
{%- for i in range(end=d.own) %}
{%- if (i + 1) * d.groups > s.merge.splits %}
  if (group + {{ i * d.groups }}u < SPLITS) { o += factors[group + {{ i * d.groups }}u] * v{{ i }}; }
{%- else %}
  o += factors[group + {{ i * d.groups }}u] * v{{ i }};
{%- endif %}
{%- endfor %}
{%- if d.groups > 1 %}
  sums[t] = o;
  workgroupBarrier();
  if (group == 0u) {
    for (var g = 1u; g < GROUPS; g += 1u) { o += sums[g * QUADS + t]; }
  }
{%- endif %}
  if (group == 0u && quad < DIM4) { put_hs(quad, o / mass, grid); }
  workgroupBarrier();
{{ <slab_sums split={c.split} shuffled={d.slab_shuffled} quads={d.slab_quads} per={d.slab_per} mine={d.slab_mine}
    bits={d.slab_bits} fields={d.slab_fields} whole={d.slab_whole} /> }}
}
