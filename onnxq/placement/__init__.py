"""Which ops of a model run in int8: the cheapest choice by measured costs."""
