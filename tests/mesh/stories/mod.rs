//! The stories: what a person may expect of Serin, told in requests.

mod bad_release;
mod chaos;
mod flagger;
mod flux;
mod hands_off;
mod kinds;
mod ladder;
mod named_user;
mod namespace;
mod numbers;
mod rebuilt;
mod sixteen;

use std::pin::Pin;
use std::sync::Arc;

use crate::bed::Bed;

/// When a story runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Beside others: it disturbs none.
    Together,
    /// After the others, by itself: it kills what all share.
    Alone,
    /// By itself, and only when it is named: it measures, and takes its time.
    Asked,
}

/// What a story does.
type Run = fn(Arc<Bed>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One story.
#[derive(Clone, Copy)]
pub(crate) struct Story {
    pub(crate) name: &'static str,
    pub(crate) when: When,
    pub(crate) run: Run,
}

/// A story whose function has its name.
macro_rules! story {
    ($when:ident $module:ident::$name:ident) => {
        Story {
            name: concat!(stringify!($module), "::", stringify!($name)),
            when: When::$when,
            run: |bed| Box::pin($module::$name(bed)),
        }
    };
}

/// All of them.
pub(crate) fn all() -> Vec<Story> {
    vec![
        story!(Together named_user::comes_and_goes),
        story!(Together named_user::hostile_names),
        story!(Together ladder::to_promotion),
        story!(Together bad_release::at_ten_per_cent),
        story!(Together namespace::deleted_idle),
        story!(Together namespace::deleted_in_the_middle_of_a_step),
        story!(Together hands_off::an_edited_weight),
        story!(Together kinds::session_affinity),
        story!(Together kinds::mirror),
        story!(Together kinds::match_without_weight),
        story!(Together kinds::gateway),
        story!(Together kinds::delegation),
        story!(Together kinds::tcp),
        story!(Together kinds::grpc),
        story!(Together sixteen::at_once),
        story!(Together flux::applies),
        story!(Together rebuilt::at_sixty_per_cent),
        story!(Alone chaos::everything_dies),
        story!(Asked numbers::commit_to_request),
        story!(Asked numbers::failure_to_zero),
        story!(Asked flagger::beside_serin),
    ]
}
