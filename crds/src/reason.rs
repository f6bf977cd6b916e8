//! Condition reasons as types: a reason knows its condition, the status it
//! stands for and its documentation, so that none of the three can disagree.

use crate::common::{Condition, ConditionStatus, condition};

/// One reason of one condition type.
///
/// Implementors are enums; a controller matches them without a wildcard arm.
pub trait Reason: Sized {
    /// The condition type this reason belongs to, such as `Queued`.
    const CONDITION: &'static str;

    /// The reason as it stands in the API: CamelCase, at most
    /// [`REASON_MAX_LENGTH`](crate::common::REASON_MAX_LENGTH) bytes.
    fn as_str(&self) -> &'static str;

    /// The condition's status when this is its reason.
    fn status(&self) -> ConditionStatus;

    /// What the reason means for the user, one or two sentences.
    fn doc(&self) -> &'static str;

    /// Every reason of this condition, in the order of the documentation.
    fn all() -> Vec<Self>;
}

/// Reason and message of a condition, where it is there and its reason is one that this program knows.
pub fn said<R: Reason>(conditions: &[Condition]) -> Option<(R, &str)> {
    let told = condition(conditions, R::CONDITION)?;
    let reason = R::all().into_iter().find(|reason| told.reason == reason.as_str())?;
    Some((reason, &told.message))
}

/// A row of the reference documentation: one reason without its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonDoc {
    /// The condition type.
    pub condition: &'static str,
    /// The condition's status with this reason.
    pub status: ConditionStatus,
    /// The reason.
    pub reason: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// The documentation rows of all reasons of `R`.
pub fn docs<R: Reason>() -> Vec<ReasonDoc> {
    R::all()
        .iter()
        .map(|reason| ReasonDoc {
            condition: R::CONDITION,
            status: reason.status(),
            reason: reason.as_str(),
            doc: reason.doc(),
        })
        .collect()
}

/// Declares a reason enum and implements [`Reason`] from its doc comments.
///
/// `+ Variant(Other) => Status` at the end takes in all reasons of another
/// enum under this condition.
macro_rules! reasons {
    (
        $(#[$meta:meta])*
        pub enum $name:ident for $condition:literal {
            $( $(#[doc = $doc:literal])+ $variant:ident => $status:ident, )*
            $( + $(#[$nest_meta:meta])+ $nest:ident($inner:ty) => $nest_status:ident, )?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[doc = $doc])+ $variant, )*
            $( $(#[$nest_meta])+ $nest($inner), )?
        }

        impl $crate::reason::Reason for $name {
            const CONDITION: &'static str = $condition;

            fn as_str(&self) -> &'static str {
                match self {
                    $( Self::$variant => stringify!($variant), )*
                    $( Self::$nest(inner) => $crate::reason::Reason::as_str(inner), )?
                }
            }

            fn status(&self) -> $crate::common::ConditionStatus {
                match self {
                    $( Self::$variant => $crate::common::ConditionStatus::$status, )*
                    $( Self::$nest(_) => $crate::common::ConditionStatus::$nest_status, )?
                }
            }

            fn doc(&self) -> &'static str {
                match self {
                    $( Self::$variant => concat!($($doc),+).trim(), )*
                    $( Self::$nest(inner) => $crate::reason::Reason::doc(inner), )?
                }
            }

            fn all() -> Vec<Self> {
                #[allow(unused_mut)]
                let mut all = vec![ $( Self::$variant, )* ];
                $( all.extend(<$inner as $crate::reason::Reason>::all().into_iter().map(Self::$nest)); )?
                all
            }
        }
    };
}
pub(crate) use reasons;
