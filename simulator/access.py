"""How a control reaches its box: the one thing every control asks the application for."""

from typing import Annotated

from fastapi import Depends, Request

from simulator.box import Box


async def the_box(request: Request) -> Box:
    """The box this control room belongs to."""
    box = request.app.state.box
    if not isinstance(box, Box):
        raise TypeError("the control room has no box")
    return box


InBox = Annotated[Box, Depends(the_box)]
