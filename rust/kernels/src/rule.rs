//! What a rule is: its descriptor, and the macro that makes one from the rule's only text.
//!
//! A rule's text has two parts: scalars, computed once a step on the host in float64, and the update of one element in
//! the compute type. The macro keeps both as strings too (for documentation and for other back ends). Drivers and
//! bindings know the descriptor [`Rule`] only, never a rule by name.

use crate::fpenv;
use crate::kernel::Table;
use crate::math::{fma, select};

/// The most state arrays a rule may have.
pub const MAX_STATES: usize = 4;
/// The most scalars a rule may have, those of the prologue included.
pub const MAX_SCALARS: usize = 16;
/// How many scalars the prologue takes, in front of the rule's own.
pub const PROLOGUE_SCALARS: usize = 3;
/// Which of them is the weight decay that is added to gradients.
pub(crate) const L2: usize = 1;

/// How `weight_decay` acts; the shared prologue applies it, no rule repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// `g += weight_decay * p`, before anything else.
    L2,
    /// `p *= 1 - lr * weight_decay`.
    Decoupled,
    /// `p *= 1 - (lr / initial_lr) * weight_decay`: the schedule's multiplier without the learning rate.
    Independent,
    /// The rule takes it as a hyperparameter and applies it itself.
    Own,
}

/// The hyperparameters that every rule has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Common {
    /// Learning rate of this step.
    pub lr: f64,
    /// Learning rate that a schedule started from; read by [`Decay::Independent`] only.
    pub initial_lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// What weight decay means.
    pub decay: Decay,
    /// Ascend instead of descend.
    pub maximize: bool,
}

impl Default for Common {
    /// lr 1e-3, no weight decay, descending.
    fn default() -> Self {
        Common { lr: 1e-3, initial_lr: 1e-3, weight_decay: 0.0, decay: Decay::L2, maximize: false }
    }
}

/// The scalars of one step of one group: three of the prologue, then the rule's own. Rounded to the compute type once,
/// when a kernel starts.
pub type Scalars = [f64; MAX_SCALARS];

/// What makes a rule layerwise: each array's step is scaled by a ratio of two norms.
///
/// `direction` is a rule that may update the states and gives as its `p` the direction whose norm is wanted; the parameter
/// stays as it is. The ratio then goes into the rule's own first scalar, and the rule runs over the same array.
pub struct Layer {
    /// The first phase.
    pub direction: fn() -> &'static Rule,
    /// Its kernels, which measure instead of writing a parameter.
    pub(crate) measures: Table,
    /// The ratio from the scalars, the norm of the parameter and that of the direction.
    pub ratio: fn(&Scalars, f64, f64) -> f64,
    /// What the text of the ratio calls the two norms.
    pub norms: [&'static str; 2],
    /// The text of the ratio, in float64: it assigns the rule's own first scalar.
    pub text: &'static str,
}

/// An optimizer rule: what the rest of the package knows about it.
pub struct Rule {
    /// Its name, in snake case.
    pub name: &'static str,
    /// Its documentation: the equation and the source.
    pub doc: &'static str,
    /// Names of its hyperparameters beside [`Common`], in the order of the values given to [`Rule::scalars`].
    pub hypers: &'static [&'static str],
    /// Names of its scalars, in order, behind those of the prologue.
    pub scalars: &'static [&'static str],
    /// Names of its state arrays, in order.
    pub states: &'static [&'static str],
    /// Whether its update reads the gradient.
    pub reads_gradient: bool,
    /// Whether its update writes the states.
    pub writes_states: bool,
    /// The host part of its text.
    pub each_step: &'static str,
    /// The element part of its text.
    pub update: &'static str,
    /// For a layerwise rule: how its `ratio` comes about.
    pub layer: Option<Layer>,
    pub(crate) host: fn(&Common, &[f64], f64) -> (Scalars, bool),
    pub(crate) kernels: Table,
    /// Kernels that save the parameter aside, or take it back, in the same pass, and which of both.
    pub(crate) aside: Option<(u8, Table)>,
}

impl Rule {
    /// The scalars of step `t` (counted from 1). `gradient_factor` multiplies every gradient: clipping and unscaling.
    ///
    /// # Panics
    /// When `hypers` has another length than [`Rule::hypers`].
    pub fn scalars(&self, common: &Common, hypers: &[f64], t: u64, gradient_factor: f64) -> Scalars {
        assert_eq!(hypers.len(), self.hypers.len(), "hyperparameters of {}", self.name);
        fpenv::standard(|| self.scalars_here(common, hypers, t, gradient_factor))
    }

    fn scalars_here(&self, common: &Common, hypers: &[f64], t: u64, gradient_factor: f64) -> Scalars {
        let (mut scalars, still) = (self.host)(common, hypers, t as f64);
        scalars[0] = if common.maximize { -gradient_factor } else { gradient_factor };
        scalars[L2] = if common.decay == Decay::L2 { common.weight_decay } else { 0.0 };
        scalars[2] = match common.decay {
            Decay::L2 | Decay::Own => 1.0,
            _ if still => 1.0,
            Decay::Decoupled => 1.0 - common.lr * common.weight_decay,
            // A learning rate that starts at zero has no multiplier: no decay then.
            Decay::Independent if common.initial_lr == 0.0 => 1.0,
            Decay::Independent => 1.0 - common.lr / common.initial_lr * common.weight_decay,
        };
        scalars
    }
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rule({})", self.name)
    }
}

/// `x` to the power `t`, the same on every machine (the C library's differs between CPUs in the last bit).
pub fn pow(x: f64, t: f64) -> f64 {
    libm::pow(x, t)
}

/// The update of one element: `S` states, `K` scalars of the rule's own, computed in `C`.
pub trait Update<C, const S: usize, const K: usize> {
    /// New parameter and states from the old ones and the gradient that the prologue has prepared.
    fn update(p: C, g: C, states: [C; S], scalars: [C; K]) -> (C, [C; S]);
}

/// Declares the prologue once: as a function in each compute type and as text.
macro_rules! prologue {
    (($p:ident, $g:ident; $($scalar:ident),+) { $($update:tt)* }) => {
        /// The text of what happens to a gradient and a parameter before a rule's own update.
        pub const PROLOGUE: &str = stringify!($($update)*);
        /// What that text calls the scalars of the prologue, in order.
        pub const PROLOGUE_NAMES: [&str; PROLOGUE_SCALARS] = [$(stringify!($scalar)),+];

        /// What every kernel does first.
        pub trait Prologue: Sized {
            /// Scales the gradient and applies weight decay; an option that is off leaves infinities alone.
            fn prologue(p: Self, g: Self, scalars: [Self; PROLOGUE_SCALARS]) -> (Self, Self);
        }
        prologue!(@impl f32 ($p, $g; $($scalar),+) { $($update)* });
        prologue!(@impl f64 ($p, $g; $($scalar),+) { $($update)* });
    };
    (@impl $type:ident ($p:ident, $g:ident; $($scalar:ident),+) { $($update:tt)* }) => {
        impl Prologue for $type {
            #[inline(always)]
            fn prologue(mut $p: $type, mut $g: $type, scalars: [$type; PROLOGUE_SCALARS]) -> ($type, $type) {
                let [$($scalar),+] = scalars;
                $($update)*
                ($p, $g)
            }
        }
    };
}

prologue! {
    (p, g; gradient_factor, l2, decay) {
        g *= gradient_factor;
        g = select(l2 != 0.0, fma(l2, p, g), g);
        p *= decay;
    }
}

/// What a kernel leaves alone, known when it is compiled.
pub trait Reach {
    /// Whether the update reads the gradient.
    const GRADIENT: bool;
    /// Whether the update writes the states.
    const WRITES: bool;
    /// Whether a state may become NaN where the parameter does not.
    const HIDES: bool;
    /// Which states may be negative.
    const SIGNED: [bool; MAX_STATES];
    /// How many states there are.
    const STATES: usize;
    /// How many scalars there are.
    const SCALARS: usize;
}

/// Declares a family of rules: shared hyperparameters and host scalars, and one update a rule.
///
/// `each_step` is Rust in float64; every name it assigns is a scalar of the update, and the learning rate and the step
/// counted from 1 are given. `update` keeps to the common subset of Rust and C++: `let`, assignment, arithmetic,
/// comparisons and the functions of [`crate::math`].
///
/// What few rules need: `; still { ... }` behind `each_step` says at which steps a parameter stays as it is, decay included.
/// `update(p)` without `g` reads no gradient; `reads(...)` instead of `state(...)` writes no state. `layerwise(direction)
/// (norm_p, norm_d) { ... }` in front of a rule makes it layerwise, see [`Layer`]: its family's first scalar must be `ratio`,
/// which that text assigns, in the words of an update. `aside save` or `aside restore` in front of a rule's states: it has
/// kernels that do this with the parameter in the same pass, for a look-ahead. `hides nan;` there: a state may become NaN where
/// the parameter does not, as by a `select` between them; a test finds rules that lack it.
macro_rules! rules {
    (
        hyper $hyper:tt;
        each_step $given:tt $host:tt
        $(; still $still:tt)?
        $(
            $(#[doc = $doc:literal])*
            $name:ident {
                $(layerwise $direction:tt $norms:tt $ratio:tt)?
                $(aside $aside:ident;)?
                $(hides $hides:ident;)?
                $(state $state:tt)? $(reads $reads:tt)?;
                update $pg:tt $update:tt
            }
        )+
    ) => {
        rules!(@host $hyper $given $host $($still)?);
        $(
            rules!(
                @rule $name $hyper $host $(state $state)? $(reads $reads)? $pg $update [$($doc)*]
                [$($direction $norms $ratio)?] [$($aside)?] [$($hides)?]
            );
        )+
    };
    (
        @host ($($hyper:ident),*) ($lr:ident, $t:ident) { $($scalar:ident = $value:expr;)* } $({ $still:expr })?
    ) => {
        #[allow(unused_variables)] // not every family needs the step or the learning rate
        fn host(common: &$crate::rule::Common, hypers: &[f64], $t: f64) -> ($crate::rule::Scalars, bool) {
            let $lr = common.lr;
            let &[$($hyper),*] = hypers else { unreachable!("the caller has checked the number") };
            $(let $scalar: f64 = $value;)*
            let own = [$($scalar),*];
            let mut scalars = [0.0; $crate::rule::MAX_SCALARS];
            scalars[$crate::rule::PROLOGUE_SCALARS..][..own.len()].copy_from_slice(&own);
            (scalars, false $(|| $still)?)
        }
    };
    (
        @rule $name:ident ($($hyper:ident),*) { $($scalar:ident = $value:expr;)* } $kind:ident ($($state:ident),*)
        ($p:ident $(, $g:ident)?) { $($update:tt)* } [$($doc:literal)*] [$($layer:tt)*]
        [$($aside:ident)?] [$($hides:ident)?]
    ) => {
        rules!(@update f32 $name ($($scalar),*) ($($state),*) ($p $(, $g)?) { $($update)* });
        rules!(@update f64 $name ($($scalar),*) ($($state),*) ($p $(, $g)?) { $($update)* });
        #[doc = concat!("Carries the update of [`", stringify!($name), "()`].")]
        #[allow(non_camel_case_types)] // it bears the rule's name
        pub enum $name {}

        impl $crate::rule::Reach for $name {
            const GRADIENT: bool = !<[&str]>::is_empty(&[$(stringify!($g))?]);
            const WRITES: bool = rules!(@writes $kind);
            const HIDES: bool = rules!(@hides $($hides)?);
            const SIGNED: [bool; $crate::rule::MAX_STATES] = $crate::small::signed(&[$(stringify!($state)),*]);
            const STATES: usize = <[&str]>::len(&[$(stringify!($state)),*]);
            const SCALARS: usize = <[&str]>::len(&[$(stringify!($scalar)),*]);
        }

        $(#[doc = $doc])*
        pub const fn $name() -> &'static $crate::rule::Rule {
            static RULE: $crate::rule::Rule = $crate::rule::Rule {
                name: stringify!($name),
                doc: concat!($($doc, "\n"),*),
                hypers: &[$(stringify!($hyper)),*],
                scalars: &[$(stringify!($scalar)),*],
                states: &[$(stringify!($state)),*],
                reads_gradient: <$name as $crate::rule::Reach>::GRADIENT,
                writes_states: <$name as $crate::rule::Reach>::WRITES,
                each_step: concat!($(stringify!($scalar = $value), ";\n"),*),
                update: stringify!($($update)*),
                layer: rules!(@layer ($($scalar),*) $($layer)*),
                host,
                kernels: rules!(@table $name, UPDATE),
                aside: rules!(@aside $name $($aside)?),
            };
            &RULE
        }
    };
    (@aside $name:ident) => { None };
    (@aside $name:ident save) => { Some(($crate::kernel::SAVE, rules!(@table $name, SAVE))) };
    (@aside $name:ident restore) => { Some(($crate::kernel::RESTORE, rules!(@table $name, RESTORE))) };
    (@table $name:ident, $what:ident) => {
        $crate::kernel::table::<
            $name,
            { <$name as $crate::rule::Reach>::STATES },
            { <$name as $crate::rule::Reach>::SCALARS },
            { $crate::kernel::$what },
        >()
    };
    (@writes state) => { true };
    (@writes reads) => { false };
    (@hides) => { false };
    (@hides nan) => { true };
    (@layer $scalars:tt) => { None };
    (
        @layer ($first:ident $(, $scalar:ident)*) ($direction:ident) ($norm_p:ident, $norm_d:ident) { $($ratio:tt)* }
    ) => {
        Some($crate::rule::Layer {
            direction: $direction,
            measures: rules!(@table $direction, MEASURE),
            ratio: {
                #[allow(unused_variables)] // a ratio needs few of the scalars
                fn ratio(scalars: &$crate::rule::Scalars, $norm_p: f64, $norm_d: f64) -> f64 {
                    const N: usize = 1 + <[&str]>::len(&[$(stringify!($scalar)),*]);
                    let [_, $($scalar),*]: [f64; N] =
                        std::array::from_fn(|i| scalars[$crate::rule::PROLOGUE_SCALARS + i]);
                    #[allow(clippy::needless_late_init)] // the text assigns it
                    let $first;
                    $($ratio)*
                    $first
                }
                ratio
            },
            norms: [stringify!($norm_p), stringify!($norm_d)],
            text: stringify!($($ratio)*),
        })
    };
    (
        @update $type:ident $name:ident ($($scalar:ident),*) ($($state:ident),*) $pg:tt { $($update:tt)* }
    ) => {
        rules!(@impl $type, $name, { <[&str]>::len(&[$(stringify!($state)),*]) },
            { <[&str]>::len(&[$(stringify!($scalar)),*]) },
            ($($scalar),*) ($($state),*) $pg { $($update)* });
    };
    (
        @impl $type:ident, $name:ident, $states:tt, $scalars:tt,
        ($($scalar:ident),*) ($($state:ident),*) ($p:ident $(, $g:ident)?) { $($update:tt)* }
    ) => {
        impl $crate::rule::Update<$type, $states, $scalars> for $name {
            #[inline(always)]
            // A family's rules share scalars; a text may only read a name, or only write it.
            #[allow(unused_mut, unused_variables, unused_assignments)]
            fn update(
                mut $p: $type, gradient: $type, states: [$type; $states], scalars: [$type; $scalars],
            ) -> ($type, [$type; $states]) {
                $(let mut $g = gradient;)?
                let [$(mut $state),*] = states;
                let [$($scalar),*] = scalars;
                $($update)*
                ($p, [$($state),*])
            }
        }
    };
}
pub(crate) use rules;
