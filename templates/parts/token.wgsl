{#- How a chosen token enters the next step without the host: it becomes the one input id, is
    kept in a ring the host reads behind, and the position advances. -#}
{% component emit_token(ring: integer) -%}
fn emit_token(token: u32) {
  ids[0] = token;
  chosen[run.position % {{ ring }}u] = token;
  run.position += run.tokens;
  run.tokens = 1u;
}
{%- endcomponent emit_token %}
