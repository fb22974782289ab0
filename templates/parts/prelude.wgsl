{#- Lines that must stand first. Naga refuses `enable subgroups;`, browsers require it. -#}
{% component prelude(web: bool, subgroups: bool, f16: bool) -%}
{% if f16 %}enable f16;{% endif %}
{% if web and subgroups %}enable subgroups;
diagnostic(off, subgroup_uniformity);{% endif %}
{%- endcomponent prelude %}

{#- What the host (and later the sampler) says of the run: first position and number of tokens. -#}
{% component step(binding: integer, access: string = "read") -%}
struct Step { position: u32, tokens: u32, seed_low: u32, seed_high: u32 }
@group(0) @binding({{ binding }}) var<storage, {{ access }}> run: Step;
{%- endcomponent step %}
