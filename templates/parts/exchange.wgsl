{#- Workgroups of one dispatch that tell each other results: the key ranges of a head, each a workgroup, whose
    unnormalised sums all of them need. WGSL lets nobody count on another workgroup that runs at the same time, nor on
    the order in which what it stores becomes visible. So every word carries in its last two bits the dispatch it is of
    (floats are rounded to 22 significant ones), and who has waited long enough computes what is missing by itself; see
    codegen/src/kernels/decode_attention.rs.

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
