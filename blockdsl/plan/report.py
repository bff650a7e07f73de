def table(p):
    return ""


def as_json(p):
    return {}
