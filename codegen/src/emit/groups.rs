//! Dispatch geometry as an expression in the number of tokens.

use proc_macro2::TokenStream;
use quote::quote;

use crate::Variant;

/// Numbers of tokens an expression is checked at: every small one and some large.
fn probes() -> impl Iterator<Item = u32> {
    (1..=600).chain([1000, 1024, 4093, 8192, 65_535])
}

/// Expressions for the workgroups in x, y and z, in a variable `tokens: u32`; `None` when
/// something is neither constant nor proportional to the tokens, rounded up.
pub(super) fn expressions(variant: &Variant) -> Option<[TokenStream; 3]> {
    let samples: Vec<(u32, [u32; 3])> = probes().map(|t| (t, variant.groups(t))).collect();
    let axis = |i: usize| expression(&samples.iter().map(|(t, g)| (*t, g[i])).collect::<Vec<_>>());
    Some([axis(0)?, axis(1)?, axis(2)?])
}

fn expression(samples: &[(u32, u32)]) -> Option<TokenStream> {
    let (_, first) = *samples.first()?;
    if samples.iter().all(|(_, g)| *g == first) {
        return Some(quote!(#first));
    }
    // ceil(tokens * a / b): at tokens = b it is a.
    for b in 1..=512 {
        let a = samples.iter().find(|(t, _)| *t == b)?.1;
        let holds =
            |(t, g): &(u32, u32)| (u64::from(*t) * u64::from(a)).div_ceil(u64::from(b)) == u64::from(*g);
        if samples.iter().all(holds) {
            return Some(match (a, b) {
                (1, 1) => quote!(tokens),
                (a, 1) => quote!(tokens * #a),
                (1, b) => quote!(tokens.div_ceil(#b)),
                (a, b) => quote!((tokens * #a).div_ceil(#b)),
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(f: impl Fn(u32) -> u32) -> Option<String> {
        expression(&probes().map(|t| (t, f(t))).collect::<Vec<_>>()).map(|e| e.to_string())
    }

    #[test]
    fn finds_the_forms_kernels_use() {
        assert_eq!(fitted(|_| 7).as_deref(), Some("7u32"));
        assert_eq!(fitted(|t| t).as_deref(), Some("tokens"));
        assert_eq!(fitted(|t| t.div_ceil(64)).as_deref(), Some("tokens . div_ceil (64u32)"));
        assert_eq!(fitted(|t| (t * 8).div_ceil(3)).as_deref(), Some("(tokens * 8u32) . div_ceil (3u32)"));
    }

    #[test]
    fn refuses_what_it_cannot_say() {
        assert_eq!(fitted(|t| t * t), None);
        assert_eq!(fitted(|t| t + 1), None);
    }
}
