"""The textbook's training step, which benchmarks compare the package's own with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cvsct.training import losses
from cvsct.training.cyclegan.step import CRITICS, CyclePass, CycleStep, Images, cycle_pass


@dataclass(frozen=True)
class Plain:
    """The textbook's step, and which improvements it has."""

    channels_last: bool = False
    batched: bool = False
    fused_adam: bool = False
    bf16: bool = False


def separate_pass(a2b: nn.Module, b2a: nn.Module, a: Images, b: Images) -> CyclePass:
    """What `cycle_pass` makes, each translation a call of its own."""
    fake_b, fake_a = a2b(a), b2a(b)
    return CyclePass(fake_b, fake_a, b2a(fake_b), a2b(fake_a), b2a(a), a2b(b))


class PlainStep:
    """A step as a textbook has it: the loss terms one after the other, nothing shared.

    It has neither image pool nor averaged weights, as the preset `paper`.

    Args:
        step: whose networks and texture loss it trains; that step is not to be used any more.
    """

    def __init__(self, step: CycleStep, how: Plain) -> None:
        config = step.config
        self.config, self.nets, self.domain, self.how = config, step.nets, step.texture_loss, how
        self.device = step.device
        self.layout = torch.channels_last if how.channels_last else torch.contiguous_format
        for module in filter(None, (self.nets, self.domain)):
            module.to(memory_format=self.layout)
        generators = [p for name in ("a2b", "b2a") for p in self.nets[name].parameters()]
        critics = [p for name in CRITICS for p in self.nets[name].parameters()]
        betas = (config.beta1, config.beta2)
        more = {"betas": betas, **({"fused": True} if how.fused_adam else {})}
        self.generators = torch.optim.Adam(generators, lr=config.learning_rate, **more)
        self.critics = torch.optim.Adam(critics, lr=config.learning_rate_discriminator, **more)

    def __call__(self, a: Images, b: Images) -> dict[str, float]:
        """Train on one batch; the weighted loss terms."""
        a, b = (x.to(self.device, memory_format=self.layout) for x in (a, b))
        for name in CRITICS:
            self.nets[name].requires_grad_(False)
        self.generators.zero_grad()
        with self._precision():
            make = cycle_pass if self.how.batched else separate_pass
            made = make(self.nets["a2b"], self.nets["b2a"], a, b)
            terms = self._generator_terms(made, a, b)
        torch.stack(list(terms.values())).sum().backward()
        self.generators.step()
        if self.domain is not None:
            self.domain.finish_step()
        for name in CRITICS:
            self.nets[name].requires_grad_(True)
        self.critics.zero_grad()
        with self._precision():
            scored = {
                "critic_a": self._critic_term("critic_a", a, made.fake_a.detach()),
                "critic_b": self._critic_term("critic_b", b, made.fake_b.detach()),
            }
        (scored["critic_a"] + scored["critic_b"]).backward()
        self.critics.step()
        return {name: float(value.detach()) for name, value in (terms | scored).items()}

    def _generator_terms(self, made: CyclePass, a: Images, b: Images) -> dict[str, Tensor]:
        config, fools = self.config, losses.generator_adversarial
        score_a, score_b = (self.nets[name] for name in CRITICS)
        terms = {
            "adversarial_a2b": config.weight_adversarial * fools(score_b(made.fake_b).float()),
            "adversarial_b2a": config.weight_adversarial * fools(score_a(made.fake_a).float()),
            "cycle_a": config.weight_cycle * (made.back_a - a).abs().mean(),
            "cycle_b": config.weight_cycle * (made.back_b - b).abs().mean(),
            "identity_a": config.weight_identity * (made.same_a - a).abs().mean(),
            "identity_b": config.weight_identity * (made.same_b - b).abs().mean(),
        }
        if self.domain is not None:
            terms["domain_a2b"] = config.weight_domain * self.domain(made.fake_b, b, "b")
            terms["domain_b2a"] = config.weight_domain * self.domain(made.fake_a, a, "a")
        return terms

    def _critic_term(self, name: str, real: Images, fake: Images) -> Tensor:
        critic = self.nets[name]
        if self.how.batched:
            of_real, of_fake = critic(torch.cat((real, fake))).float().chunk(2)
        else:
            of_real, of_fake = critic(real).float(), critic(fake).float()
        return losses.discriminator_adversarial(of_real, of_fake)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.how.bf16)
