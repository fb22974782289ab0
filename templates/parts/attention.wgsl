{#- `angle(position, pair) -> (cos, sin)` from the binding `angles`: products of two small tables, so
    no position is ever reduced inexactly. Pairs from `rotary` on stay as they are. -#}
{% component rotation(rotary: integer) -%}
fn angle(position: u32, pair: u32) -> vec2<f32> {
  if (pair >= {{ rotary }}u) { return vec2<f32>(1.0, 0.0); }
  let low = angles[(position & 255u) * {{ rotary }}u + pair];
  let high = angles[(256u + (position >> 8u)) * {{ rotary }}u + pair];
  return vec2<f32>(low.x * high.x - low.y * high.y, low.y * high.x + low.x * high.y);
}
{%- endcomponent rotation %}

{#- The same for the four pairs from 4 * `quad` on at once, where all four rotate or none; `angles` has two
    entries a quad. -#}
{% component rotation_quads(rotary: integer) -%}
struct Turn { co: vec4<f32>, si: vec4<f32> }
fn turn(position: u32, quad: u32) -> Turn {
  if (quad >= {{ rotary // 4 }}u) { return Turn(vec4<f32>(1.0), vec4<f32>()); }
  let low = (position & 255u) * {{ rotary // 2 }}u + 2u * quad;
  let high = (256u + (position >> 8u)) * {{ rotary // 2 }}u + 2u * quad;
  let a = angles[low];
  let b = angles[low + 1u];
  let c = angles[high];
  let d = angles[high + 1u];
  let low_co = vec4<f32>(a.xz, b.xz);
  let low_si = vec4<f32>(a.yw, b.yw);
  let high_co = vec4<f32>(c.xz, d.xz);
  let high_si = vec4<f32>(c.yw, d.yw);
  return Turn(low_co * high_co - low_si * high_si, low_si * high_co + low_co * high_si);
}
{%- endcomponent rotation_quads %}

{#- `score_at(i)`: score `i` of a tile, of whose sum `parts` lie in the workgroup's `scores`. -#}
{% component part_scores(parts: integer) -%}
fn score_at(i: u32) -> f32 {
{%- if parts > 1 %}
  var score = 0.0;
  for (var p = 0u; p < {{ parts }}u; p += 1u) { score += scores[i * {{ parts }}u + p]; }
  return score;
{%- else %}
  return scores[i];
{%- endif %}
}
{%- endcomponent part_scores %}

{#- What a workgroup that joins key ranges needs: `factors`, `sums`, and two reductions. -#}
{% component merge_memory(wg: integer, sg: integer, groups: integer, splits: integer) -%}
// What each range counts for; zero where it saw no key, whatever its maximum says.
var<workgroup> factors: array<f32, {{ splits }}>;
{% if groups > 1 -%}
var<workgroup> sums: array<vec4<f32>, {{ wg }}>;
{%- endif %}
{% if splits > sg -%}
{{ <workgroup_reduce name="largest" wg={wg} sg={sg} op="max" /> }}
{{ <workgroup_reduce name="total" wg={wg} sg={sg} /> }}
{%- endif %}
{%- endcomponent merge_memory %}

{#- Joins the key ranges of a head, whose `partials` begin at `base`: `o` is the sum of the threads of
    group 0, one a quad, and `mass` what it is divided by. `ahead`: each thread has its ranges in v0, v1, …
    already. Uses `group`, `column` and the constants of whoever calls it. -#}
{% component merge_ranges(wg: integer, sg: integer, groups: integer, splits: integer, own: integer, ahead: integer) -%}
{%- if splits <= sg %}
  // A lane a range: every subgroup knows all by itself, and one writes the factors down.
  let range = t % {{ sg }}u;
  let stat = partials[base + min(range, SPLITS - 1u) * RANGE + DIM4];
  var top = stat.x;
  for (var step_ = {{ sg // 2 }}u; step_ > 0u; step_ >>= 1u) { top = max(top, subgroupShuffleXor(top, step_)); }
  let factor = select(0.0, exp(stat.x - top), range < SPLITS && stat.y > 0.0);
  var mass = factor * stat.y;
  for (var step_ = {{ sg // 2 }}u; step_ > 0u; step_ >>= 1u) { mass += subgroupShuffleXor(mass, step_); }
  if (t < SPLITS) { factors[t] = factor; }
{%- else %}
  var top = -3.0e38;
  for (var i = t; i < SPLITS; i += {{ wg }}u) { top = max(top, partials[base + i * RANGE + DIM4].x); }
  top = largest(t, top);
  var mass = 0.0;
  for (var i = t; i < SPLITS; i += {{ wg }}u) {
    let stat = partials[base + i * RANGE + DIM4];
    let f = select(0.0, exp(stat.x - top), stat.y > 0.0);
    factors[i] = f;
    mass += f * stat.y;
  }
  mass = total(t, mass);
{%- endif %}
  workgroupBarrier();
  var o = vec4<f32>();
{%- if ahead == 1 %}
{%- for i in range(end=own) %}
{%- if (i + 1) * groups > splits %}
  if (group + {{ i * groups }}u < SPLITS) { o += factors[group + {{ i * groups }}u] * v{{ i }}; }
{%- else %}
  o += factors[group + {{ i * groups }}u] * v{{ i }};
{%- endif %}
{%- endfor %}
{%- else %}
  for (var i = group; i < SPLITS; i += GROUPS) { o += factors[i] * partials[column + i * RANGE]; }
{%- endif %}
{%- if groups > 1 %}
  sums[t] = o;
  workgroupBarrier();
  if (group == 0u) {
    for (var g = 1u; g < GROUPS; g += 1u) { o += sums[g * QUADS + t]; }
  }
{%- endif %}
{%- endcomponent merge_ranges %}
