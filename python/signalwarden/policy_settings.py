"""What `signalwarden.yaml` may say of policy engines: how Rego is asked, and what it sees."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from signalwarden.values import Strict, bad_value

__all__ = ["Policies", "RegoSettings"]

Query = Annotated[str, Field(pattern=r"^data(\.[A-Za-z_][A-Za-z0-9_]*){1,16}$")]
"""A rule, by the path of its package and its name."""
ActionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,127}$")]
"""The core says whether a route declares it."""
MAX_ACTIONS = 10_000
"""As many as a large `routes.yaml` declares."""


class RegoSettings(Strict):
    """How Rego is asked."""

    query: Annotated[
        Query,
        Field(description="the rule that is asked; its answer is a boolean, or an object with `allowed`"),
    ] = "data.authz.allow"
    actions: Annotated[
        tuple[ActionName, ...] | None,
        Field(max_length=MAX_ACTIONS, description="for which actions; left out: for those of all routes"),
    ] = None
    input: Annotated[
        Literal["governed", "opa_envoy"],
        Field(
            description="what policies see: the governed projection, or the whole request as OPA's Envoy plugin has it"
        ),
    ] = "governed"
    ungoverned: Annotated[
        bool,
        Field(
            description="says aloud that `input: opa_envoy` suspends what the register promises; it asks for this"
        ),
    ] = False
    descriptors: Annotated[
        str | None,
        Field(
            max_length=255,
            description="a `FileDescriptorSet` in the directory, by which gRPC bodies are read",
        ),
    ] = None

    @model_validator(mode="after")
    def _says_it_aloud(self) -> RegoSettings:
        compatible = self.input == "opa_envoy"
        if compatible and not self.ungoverned:
            raise bad_value(
                "`input: opa_envoy` shows policies the whole request, outside the register: expected "
                "`ungoverned: true` beside it"
            )
        if not compatible and self.ungoverned:
            raise bad_value("`ungoverned: true` belongs to `input: opa_envoy`, found `input: governed`")
        if not compatible and self.descriptors is not None:
            raise bad_value("`descriptors` belongs to `input: opa_envoy`, found `input: governed`")
        return self


class Policies(Strict):
    """Engine options."""

    rego: Annotated[
        RegoSettings | None, Field(description="how Rego is asked, where there are `.rego` files")
    ] = None

    def for_core(self) -> dict[str, Any]:
        """What the core must know."""
        return {} if self.rego is None else {"rego": self.rego.model_dump()}
