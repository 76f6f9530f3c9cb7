"""Network namespaces with real tools in them, and a real `ctweb run` in the middle."""
