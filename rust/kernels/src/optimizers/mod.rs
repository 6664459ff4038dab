//! The rules of all optimizers, one file per family, and the registry of them. Knows rules and kernels, but no driver.

pub mod adabelief;
pub mod adabound;
pub mod adadelta;
pub mod adafactor;
pub mod adagrad;
pub mod adai;
pub mod adam;
pub mod adam_atan2;
pub mod adam_mini;
pub mod adamax;
pub mod adamp;
pub mod adan;
pub mod ademamix;
pub mod adopt;
pub mod aggmo;
pub mod asgd;
pub mod came;
mod cautious;
mod clipping;
pub mod d_adaptation;
pub mod dog;
pub mod fromage;
pub mod ftrl;
pub mod grams;
pub mod lamb;
pub mod laprop;
pub mod lars;
pub mod lion;
pub mod madgrad;
pub mod mars;
pub mod muon;
pub mod nadam;
pub mod nag;
pub mod novograd;
pub mod padam;
pub mod prodigy;
pub mod qhadam;
pub mod radam;
pub mod rmsprop;
pub mod rprop;
pub mod schedule_free;
pub mod sgd;
pub mod shampoo;
pub mod signum;
pub mod sm3;
pub mod soap;
pub mod sophia;
pub mod stable_adamw;
pub mod tools;
pub mod yogi;

use crate::kernel::CompiledRule;
pub use clipping::clip_factor;

/// Every rule that implements an optimizer; [`tools`] are not among them.
pub static ALL: &[&CompiledRule] = &[
    sgd::sgd(),
    sgd::momentum(),
    nag::nag(),
    muon::muon(),
    soap::soap(),
    shampoo::shampoo(),
    shampoo::shampoo_averaged(),
    shampoo::shampoo_grafted(),
    aggmo::aggmo2(),
    aggmo::aggmo3(),
    aggmo::aggmo4(),
    asgd::asgd(),
    rprop::rprop(),
    adagrad::adagrad(),
    adagrad::adagrad_row_wise(),
    adadelta::adadelta(),
    rmsprop::rmsprop(),
    rmsprop::rmsprop_momentum(),
    rmsprop::rmsprop_centered(),
    rmsprop::rmsprop_centered_momentum(),
    adam::adam(),
    adam::amsgrad(),
    adam::adam_scaled(),
    adam::adam_catching_up(),
    adamax::adamax(),
    adabelief::adabelief(),
    adabelief::adabelief_amsgrad(),
    yogi::yogi(),
    nadam::nadam(),
    nadam::nadam_cautious(),
    qhadam::qhadam(),
    laprop::laprop(),
    laprop::laprop_cautious(),
    grams::grams(),
    adan::adan(),
    adan::adan_cautious(),
    adabound::adabound(),
    adabound::amsbound(),
    adopt::adopt(),
    adopt::adopt_cautious(),
    ademamix::ademamix(),
    radam::radam(),
    radam::radam_centralized(),
    lars::lars(),
    lamb::lamb(),
    lion::lion(),
    lion::lion_cautious(),
    signum::signsgd(),
    signum::signum(),
    novograd::novograd(),
    adafactor::adafactor(),
    adafactor::adafactor_vector(),
    adafactor::adafactor_momentum(),
    adafactor::adafactor_vector_momentum(),
    came::came(),
    came::came_vector(),
    sm3::sm3(),
    sm3::sm3_momentum(),
    sm3::sm3_vector(),
    sm3::sm3_vector_momentum(),
    prodigy::prodigy(),
    d_adaptation::dadaptadam(),
    d_adaptation::dadaptsgd(),
    dog::dog(),
    dog::dog_layerwise(),
    madgrad::madgrad(),
    padam::padam(),
    padam::padam_amsgrad(),
    adam_atan2::adamatan2(),
    ftrl::ftrl(),
    schedule_free::schedulefreesgd(),
    schedule_free::schedulefreeadamw(),
    sophia::sophiag(),
    sophia::sophiah(),
    stable_adamw::stableadamw(),
    mars::mars(),
    mars::mars_cautious(),
    mars::mars_lion(),
    mars::mars_lion_cautious(),
    mars::mars_vector(),
    mars::mars_vector_cautious(),
    adai::adai(),
    adamp::adamp(),
    adamp::adamp_vector(),
    adamp::sgdp(),
    adamp::sgdp_vector(),
    fromage::fromage(),
    adam_mini::adammini(),
];

/// Rules for array operations other than optimizing.
pub static TOOLS: &[&CompiledRule] = &[
    tools::clip_norm(),
    tools::scale(),
    tools::average(),
    tools::ascend(),
    tools::clip_adaptively(),
    tools::clip_rms(),
    tools::zero_nans(),
    tools::lookahead(),
    tools::clamp(),
    tools::centralize(),
    tools::copy(),
    tools::copy_finding_nan(),
    tools::combine(),
    tools::combine_along(),
];

/// The rule of this name, tools included.
pub fn find(name: &str) -> Option<&'static CompiledRule> {
    ALL.iter().chain(TOOLS).copied().find(|compiled| compiled.rule.name == name)
}
