//! Dispatch geometry as an expression in the number of tokens.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};

use crate::Variant;

/// Numbers of tokens an expression is checked at: every small one and some large.
fn probes() -> impl Iterator<Item = u32> {
    (1..=600).chain([1000, 1024, 4093, 8192, 65_535])
}

/// Workgroups along one axis; written as an expression in a variable `tokens: u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// As many for any number of tokens.
    Constant(u32),
    /// `tokens * by / per`, rounded up.
    Scaled { by: u32, per: u32 },
}

/// The workgroups in x, y and z; `None` when something is neither constant nor proportional to the
/// tokens, rounded up.
pub(super) fn counts(variant: &Variant) -> Option<[Count; 3]> {
    let samples: Vec<(u32, [u32; 3])> = probes().map(|t| (t, variant.groups(t))).collect();
    let axis = |i: usize| Count::fit(&samples.iter().map(|(t, g)| (*t, g[i])).collect::<Vec<_>>());
    Some([axis(0)?, axis(1)?, axis(2)?])
}

impl Count {
    fn fit(samples: &[(u32, u32)]) -> Option<Self> {
        let (_, first) = *samples.first()?;
        if samples.iter().all(|(_, g)| *g == first) {
            return Some(Self::Constant(first));
        }
        // At tokens = per it is by.
        (1..=512).find_map(|per| {
            let by = samples.iter().find(|(t, _)| *t == per)?.1;
            let holds = |(t, g): &(u32, u32)| {
                (u64::from(*t) * u64::from(by)).div_ceil(u64::from(per)) == u64::from(*g)
            };
            samples.iter().all(holds).then_some(Self::Scaled { by, per })
        })
    }
}

impl ToTokens for Count {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.extend(match *self {
            Self::Constant(n) => quote!(#n),
            Self::Scaled { by: 1, per: 1 } => quote!(tokens),
            Self::Scaled { by, per: 1 } => quote!(tokens * #by),
            Self::Scaled { by: 1, per } => quote!(tokens.div_ceil(#per)),
            Self::Scaled { by, per } => quote!((tokens * #by).div_ceil(#per)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(f: impl Fn(u32) -> u32) -> Option<String> {
        Count::fit(&probes().map(|t| (t, f(t))).collect::<Vec<_>>()).map(|c| c.to_token_stream().to_string())
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
