{#- `digits_of(quad, largest)`: floats as two int8 digits, most significant first, value = unit * (d0 * 256 + d1) with
    balanced digits of -128 to 127: 15 bits of `largest`, which is at least each magnitude. -#}
{% component digits_of() -%}
struct Digits { words: vec2<u32>, unit: f32 }
{{ <largest_of /> }}
fn digits_of(v: vec4<f32>, largest: f32) -> Digits {
  // What is smaller yet would have no reciprocal.
  let q = vec4<i32>(round(v * select(0.0, 32512.0 / largest, largest > 1e-30)));
  let low = ((q + 128) & vec4<i32>(255)) - 128;
  return Digits(vec2<u32>(pack4xI8((q - low) >> vec4<u32>(8u)), pack4xI8(low)), largest / 32512.0);
}
{%- endcomponent digits_of %}

{#- The largest magnitude of a quad. -#}
{% component largest_of() -%}
fn largest_of(v: vec4<f32>) -> f32 {
  let a = abs(v);
  return max(max(a.x, a.y), max(a.z, a.w));
}
{%- endcomponent largest_of %}

{#- `largest0`, `largest1`, …: the largest magnitude of the `fields` quads that a piece of integer weights meets, of
    which neighbouring threads have one each, in x0, x1, …; by shuffles where subgroups span them. -#}
{% component piece_largest(per_thread: integer, fields: integer, sg: integer, quads: integer) -%}
{%- if fields > 1 and sg < fields %}
{%- for i in range(end=per_thread) %}
  if (in{{ i }}) { quad_largest[q{{ i }}] = largest_of(x{{ i }}); }
{%- endfor %}
  workgroupBarrier();
{%- endif %}
{%- for i in range(end=per_thread) %}
{%- if fields == 1 %}
  let largest{{ i }} = largest_of(x{{ i }});
{%- elif sg < fields %}
  let first{{ i }} = min(q{{ i }}, {{ quads - 1 }}u) / {{ fields }}u * {{ fields }}u;
  let largest{{ i }} = {% for f in range(end=fields) %}{% if f + 1 < fields %}max({% endif %}quad_largest[first{{ i }} + {{ f }}u]{% if f + 1 < fields %}, {% endif %}{% endfor %}{% for f in range(start=1, end=fields) %}){% endfor %};
{%- elif fields == 2 %}
  let of{{ i }} = largest_of(x{{ i }});
  let largest{{ i }} = max(of{{ i }}, subgroupShuffleXor(of{{ i }}, 1u));
{%- else %}
  let of{{ i }} = largest_of(x{{ i }});
  let two{{ i }} = max(of{{ i }}, subgroupShuffleXor(of{{ i }}, 1u));
  let largest{{ i }} = max(two{{ i }}, subgroupShuffleXor(two{{ i }}, 2u));
{%- endif %}
{%- endfor %}
{%- endcomponent piece_largest %}

{#- The memory that it needs. -#}
{% component piece_memory(fields: integer, sg: integer, quads: integer) -%}
{% if fields > 1 and sg < fields -%}
var<workgroup> quad_largest: array<f32, {{ quads }}>;
{%- endif %}
{%- endcomponent piece_memory %}
