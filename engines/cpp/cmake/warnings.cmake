# Warnings, sanitizers, and arithmetic as written: the sampler's ids must not depend on fused multiply-adds.
function(elastic_warnings target)
  if(MSVC)
    target_compile_options(${target} PRIVATE /W4 /utf-8 /fp:precise)
  else()
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -ffp-contract=off)
  endif()
  if(ELASTIC_SANITIZE AND MSVC)
    target_compile_options(${target} PUBLIC /fsanitize=address /Zi)  # it has no other
  elseif(ELASTIC_SANITIZE)
    target_compile_options(${target} PUBLIC -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
    target_link_options(${target} PUBLIC -fsanitize=address,undefined)
  endif()
endfunction()
