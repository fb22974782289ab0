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
