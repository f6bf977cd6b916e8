obj.spec.mode = "Apply"
return obj
